import { attempt, EscrowError, isErrorNamed, textOfError } from '@escrowmq/protocol';
import { causeOf } from '../cause.js';

/** A day: what waits longer belongs into a schedule, as a message with `deliverAt`. */
const RETRY_LATER_MS_MAX = 24 * 60 * 60 * 1000;

/**
 * Postponements of one message that spend no attempt. The next ones count as failures, so that no
 * message circles for ever because its handler always asks for later.
 */
export const POSTPONED_MAX = 100;

/**
 * Thrown by a handler to have the message again after some time: what it needs is not there yet,
 * and that is not a failure. It spends no attempt, up to 100 times for one message
 * (`message.postponed` counts them); from then on it counts as a failure like any other.
 *
 * The message waits in a retry queue, the one of the smallest of `retryDelaysMs` that is long
 * enough. It never comes earlier. It may come later, when it stands behind messages that wait for
 * longer, but not later than that queue's own delay. A time beyond the largest delay is waited for
 * in several rounds, by the consumer's clock; no handler is called in between. Without any
 * `retryDelaysMs` there is no queue to wait in, and this is a failure.
 *
 * @param ms 1 ms to 24 h
 * @param cause for the log
 * @throws EscrowError INVALID_CONFIGURATION for another time
 * @example
 * if (!order.isPaid) throw new RetryLater(60_000, `order ${order.id} is not paid yet`);
 */
export class RetryLater extends Error {
  /** What it is known by, whichever copy of the package made it. */
  override readonly name = 'RetryLater';
  /** How long it is to wait, in milliseconds. */
  readonly ms: number;

  /** Asks for the message again. @param ms 1 ms to 24 h @param cause for the log */
  constructor(ms: number, cause?: unknown) {
    if (!isTime(ms)) {
      throw new EscrowError(
        'INVALID_CONFIGURATION',
        `RetryLater takes 1 to ${RETRY_LATER_MS_MAX} ms, got ${textOfError(ms)}`,
      );
    }
    super(
      `again in ${ms} ms${cause === undefined ? '' : `: ${textOf(cause)}`}`,
      cause === undefined ? {} : { cause },
    );
    this.ms = ms;
  }
}

const isTime = (ms: unknown): ms is number =>
  typeof ms === 'number' && ms >= 1 && ms <= RETRY_LATER_MS_MAX;

const textOf = (cause: unknown) => (typeof cause === 'string' ? cause : causeOf(cause));

/** The time asked for; by name, so that an error of another copy of this package counts as well. */
export function retryLaterMs(error: unknown): number | undefined {
  if (!isErrorNamed(error, 'RetryLater')) return undefined;
  const ms = attempt(() => (error as Partial<RetryLater>).ms, undefined);
  return isTime(ms) ? Math.ceil(ms) : undefined;
}

import { isMismatch } from './mismatch.js';
import { isPermanentError } from './permanent-error.js';
import { POSTPONED_MAX, retryLaterMs } from './retry-later.js';

/**
 * What becomes of a message that was not consumed: a pure decision, made before anything is
 * published. Carrying it out is settle.ts.
 */

/**
 * Why a message is a dead letter:
 * - `exhausted`: the handler failed once more after the last retry delay
 * - `permanent`: the handler threw a `PermanentError`
 * - `foreign`: not a message of EscrowMQ; no handler saw it
 * - `altered`: ours, but its body is not the one that the broker sent; no handler saw it
 * - `mismatch`: its data fit no schema of the subscription's typed topic; no handler saw it
 * - `unreadable`: ours, but its body is not the JSON it says it is; no handler saw it
 * - `redelivered`: came back unsettled again and again, as when it kills its consumer
 */
export type DeadReason =
  | 'exhausted'
  | 'permanent'
  | 'foreign'
  | 'altered'
  | 'mismatch'
  | 'unreadable'
  | 'redelivered';

/** What has become of a message so far, in one consumer group. */
export interface Tries {
  /** Attempts that failed. */
  attempts: number;
  /** `RetryLater`s that spent no attempt. */
  postponed: number;
}

/** A stay in a retry queue. */
export interface Stay {
  /** Names the queue: its own delay. */
  queueMs: number;
  /** How long in it; at most `queueMs`. */
  inMs: number;
}

export type NextStep =
  | ({ step: 'retry' } & Stay & Tries)
  /** `notBefore`, by the consumer's clock: it has further to go when this stay is over. */
  | ({ step: 'postpone'; notBefore?: number } & Stay & Tries)
  | ({ step: 'deadLetter'; reason: DeadReason } & Tries);

export interface RetryPolicy {
  /** The delay after the first failure, after the second, and so on, never shrinking. */
  retryDelaysMs: readonly number[];
  /** A delay less its jitter, in whole ms. */
  shortened(delayMs: number): number;
  /** UTC milliseconds of this consumer. */
  now(): number;
}

/** @param tries before this one */
export function afterError(error: unknown, tries: Tries, policy: RetryPolicy): NextStep {
  const { retryDelaysMs } = policy;
  const { postponed } = tries;
  const laterMs = retryLaterMs(error);
  const stay = laterMs === undefined ? undefined : stayFor(laterMs, policy);
  if (stay !== undefined && postponed < POSTPONED_MAX) {
    return { step: 'postpone', ...stay, attempts: tries.attempts, postponed: postponed + 1 };
  }
  const attempts = tries.attempts + 1;
  if (isMismatch(error)) {
    return { step: 'deadLetter', reason: 'mismatch', attempts, postponed };
  }
  if (isPermanentError(error)) {
    return { step: 'deadLetter', reason: 'permanent', attempts, postponed };
  }
  const queueMs = retryDelaysMs[tries.attempts];
  if (queueMs === undefined) {
    return { step: 'deadLetter', reason: 'exhausted', attempts, postponed };
  }
  return { step: 'retry', queueMs, inMs: policy.shortened(queueMs), attempts, postponed };
}

/** For a message that arrives before its time, between two retry queues. */
export function beforeItsTime(
  notBefore: number,
  tries: Tries,
  policy: RetryPolicy,
): NextStep | undefined {
  const remainingMs = notBefore - policy.now();
  const stay = remainingMs > 0 ? stayFor(remainingMs, policy) : undefined;
  return stay && { step: 'postpone', ...stay, ...tries };
}

/** Where to wait that long: undefined without any retry queue. */
function stayFor(
  remainingMs: number,
  { retryDelaysMs, now }: RetryPolicy,
): (Stay & { notBefore?: number }) | undefined {
  const queueMs = retryDelaysMs.find((delayMs) => delayMs >= remainingMs);
  if (queueMs !== undefined) return { queueMs, inMs: remainingMs };
  const largest = retryDelaysMs.at(-1);
  if (largest === undefined) return undefined;
  return { queueMs: largest, inMs: largest, notBefore: now() + remainingMs };
}

/** The pause before the first requeue. */
const REQUEUE_MS_MIN = 1_000;
/** With 100 deliveries allowed (topology.ts), RabbitMQ may be in trouble for most of an hour. */
const REQUEUE_MS_MAX = 30_000;

/**
 * How long a message stays with us when its retry copy or dead letter was not confirmed. Grows
 * with the returns that RabbitMQ counts, so it is never a hot loop.
 */
export function requeuePauseMs(returnCount: number): number {
  return Math.min(REQUEUE_MS_MAX, REQUEUE_MS_MIN * 2 ** Math.min(returnCount, 16));
}

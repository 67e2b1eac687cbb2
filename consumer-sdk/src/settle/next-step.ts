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
 * - `unreadable`: ours, but its body is not the JSON it says it is; no handler saw it
 * - `redelivered`: came back unsettled again and again, as when it kills its consumer
 */
export type DeadReason =
  | 'exhausted'
  | 'permanent'
  | 'foreign'
  | 'altered'
  | 'unreadable'
  | 'redelivered';

export type NextStep =
  | { step: 'retry'; delayMs: number; attempts: number }
  | { step: 'deadLetter'; reason: DeadReason; attempts: number };

/**
 * @param attemptsBefore attempts that failed before this one
 * @param retryDelaysMs the delay after the first failure, after the second, and so on
 */
export function afterFailure(
  attemptsBefore: number,
  permanent: boolean,
  retryDelaysMs: readonly number[],
): NextStep {
  const attempts = attemptsBefore + 1;
  if (permanent) return { step: 'deadLetter', reason: 'permanent', attempts };
  const delayMs = retryDelaysMs[attemptsBefore];
  if (delayMs === undefined) return { step: 'deadLetter', reason: 'exhausted', attempts };
  return { step: 'retry', delayMs, attempts };
}

/** The pause before the first requeue. */
const REQUEUE_MS_MIN = 1_000;
/** With 100 deliveries allowed (topology.ts), RabbitMQ may be in trouble for most of an hour. */
const REQUEUE_MS_MAX = 30_000;

/**
 * How long a message stays with us when its retry copy or dead letter was not confirmed. Grows
 * with the deliveries that RabbitMQ counts, so it is never a hot loop.
 */
export function requeuePauseMs(deliveryCount: number): number {
  return Math.min(REQUEUE_MS_MAX, REQUEUE_MS_MIN * 2 ** Math.min(deliveryCount, 16));
}

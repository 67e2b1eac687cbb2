import type { CheckPolicy } from '@escrowmq/protocol';

/** Delays that double from a first one up to a cap. */
export interface BackOff {
  firstDelayMs: number;
  delayMsMax: number;
}

/** A check policy as the decisions need it; `jitter` is a number in [0, 1) drawn by the caller. */
export type CheckSchedule = Pick<CheckPolicy, 'firstDelayMs' | 'delayMsMax' | 'unknownMax'> & {
  jitter: number;
};

/** A first delay of 0 would make a hot loop out of a producer that says "unknown". */
const BACK_OFF_FLOOR_MS = 100;
/** ±20 %, so that what failed together does not come back together. */
const JITTER_SHARE = 0.2;

/**
 * The delay before attempt `attempt + 1`, with `attempt` counted from 1.
 *
 * @example backOffMs({ firstDelayMs: 1000, delayMsMax: 300_000 }, 3) // 4000
 */
export function backOffMs(policy: BackOff & { jitter?: number }, attempt: number): number {
  const first = Math.max(policy.firstDelayMs, BACK_OFF_FLOOR_MS);
  // 2 ** 40 is beyond every cap; a larger exponent would only overflow.
  const delay = Math.min(first * 2 ** Math.min(attempt - 1, 40), policy.delayMsMax);
  const spread = ((policy.jitter ?? 0.5) * 2 - 1) * JITTER_SHARE;
  return Math.max(BACK_OFF_FLOOR_MS, Math.round(delay * (1 + spread)));
}

/** A queue that is being declared is there within a second; one that is missing, perhaps never. */
export const FORWARD_BACK_OFF: BackOff = { firstDelayMs: 1_000, delayMsMax: 300_000 };

/** A channel is opened again within milliseconds; by then the message that closed it is known. */
export const INTERRUPTED_AGAIN_MS = 500;

export interface ForwardPolicy {
  /**
   * Rounds after which what stays unroutable is parked. With the back-off above, 20 rounds are
   * about one hour.
   */
  undeliverableAttemptsMax: number;
}

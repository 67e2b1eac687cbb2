/**
 * How long polls may be on a way that cuts them: many proxies end a request that has had no answer for
 * some seconds. A poll that lasted for a while and failed before its time was cut, and the next ones
 * end sooner than that, by themselves; after some of them a longer one is tried again, because a broker
 * that stopped in the middle of a poll looks the same. One that failed at once says nothing of it.
 */
export interface PollLength {
  /** Milliseconds for the next poll, of those that are left. */
  next(leftMs: number): number;
  succeeded(): void;
  /** A poll of `pollMs` failed after `lastedMs`; true when it was cut. */
  failed(pollMs: number, lastedMs: number): boolean;
}

/** Shorter ones fail for other reasons, and shorter polls would be nothing but load. */
const CUT_MS_MIN = 500;
/** Room for what the answer takes. */
const SHARE_OF_CUT = 0.7;
/** One poll in so many may be cut once more. */
const POLLS_UNTIL_LONGER = 20;

/** @param longestMs that a poll may be */
export function createPollLength(longestMs: number): PollLength {
  let lengthMs = longestMs;
  let inARow = 0;
  return {
    next: (leftMs) => Math.max(1, Math.min(lengthMs, Math.ceil(leftMs))),
    succeeded() {
      inARow += 1;
      if (inARow < POLLS_UNTIL_LONGER) return;
      inARow = 0;
      lengthMs = Math.min(longestMs, lengthMs * 2);
    },
    failed(pollMs, lastedMs) {
      inARow = 0;
      if (lastedMs < CUT_MS_MIN || lastedMs >= pollMs) return false;
      lengthMs = Math.min(lengthMs, Math.round(lastedMs * SHARE_OF_CUT));
      return true;
    },
  };
}

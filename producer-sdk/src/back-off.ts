/** The first repeat comes soon: most failures are a lost connection that opens again at once. */
const BACK_OFF_FIRST_MS = 50;
/** More than a second would use up the time limit of a prepare (2 s) in a single pause. */
const BACK_OFF_MAX_MS = 1_000;

/**
 * The pause after `failures` failures in a row: it doubles up to a second. Half of it is random,
 * so that callers that failed together do not come back together.
 */
export function backOffMs(failures: number): number {
  const ceilingMs = Math.min(BACK_OFF_MAX_MS, BACK_OFF_FIRST_MS * 2 ** Math.min(failures - 1, 10));
  return ceilingMs / 2 + (Math.random() * ceilingMs) / 2;
}

/** Callers whom a busy broker sent away together come back spread over this part of their wait. */
const RETRY_AFTER_SPREAD = 0.25;

/**
 * The pause after `failures` failures in a row and an answer that said `Retry-After`: its back-off,
 * but never less than what the broker asked for.
 *
 * @param retryAfterMs milliseconds; 0 when the broker said nothing
 */
export function pauseBeforeRepeatMs(failures: number, retryAfterMs: number): number {
  const spreadMs = retryAfterMs * RETRY_AFTER_SPREAD * Math.random();
  return Math.max(backOffMs(failures), retryAfterMs + spreadMs);
}

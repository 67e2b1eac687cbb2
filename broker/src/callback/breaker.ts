/*
 * A circuit breaker for one check endpoint, as pure functions of a state and a time. It spares a
 * dead endpoint the load and the caller the wait: after some failures in a row it opens for a
 * while, then lets one probe through, and closes again on the first success.
 *
 * Calls that began before it opened may end at any time. Their success closes it, for the endpoint
 * is plainly there; their failure says nothing new and leaves it as it is.
 */

export type Breaker =
  | { state: 'closed'; failures: number }
  | { state: 'open'; openedForMs: number; until: number }
  /** One probe is under way. */
  | { state: 'halfOpen'; openedForMs: number };

export interface BreakerLimits {
  /** Failures in a row that open it. */
  failuresMax: number;
  /** How long it opens at first; doubles with every probe that fails. */
  openMs: number;
  openMsMax: number;
}

export const BREAKER_LIMITS: BreakerLimits = {
  // One restart of a producer loses a few checks; five in a row are more than a restart.
  failuresMax: 5,
  // Long enough for a process to come back, short enough that nobody waits for its recovery.
  openMs: 5_000,
  openMsMax: 60_000,
};

export const CLOSED: Breaker = { state: 'closed', failures: 0 };

/** Until when no call may be made; `probing`: until the one that is under way has ended. */
export function shutUntil(breaker: Breaker): number | 'probing' | undefined {
  if (breaker.state === 'closed') return undefined;
  return breaker.state === 'open' ? breaker.until : 'probing';
}

/** @param now monotonic milliseconds, the same clock in all of these */
export function mayCall(breaker: Breaker, now: number): boolean {
  return breaker.state === 'closed' || (breaker.state === 'open' && now >= breaker.until);
}

/** The state while a call that `mayCall` allowed is under way; half open: the call is the probe. */
export function beginCall(breaker: Breaker): Breaker {
  return breaker.state === 'open'
    ? { state: 'halfOpen', openedForMs: breaker.openedForMs }
    : breaker;
}

/** A call failed; `probe` says that it was begun by moving to half open. */
export function callFailed(
  breaker: Breaker,
  call: { now: number; probe: boolean },
  limits: BreakerLimits,
): Breaker {
  switch (breaker.state) {
    case 'closed':
      if (breaker.failures + 1 < limits.failuresMax) {
        return { state: 'closed', failures: breaker.failures + 1 };
      }
      return { state: 'open', openedForMs: limits.openMs, until: call.now + limits.openMs };
    case 'open':
      return breaker;
    case 'halfOpen': {
      if (!call.probe) return breaker;
      const openedForMs = Math.min(breaker.openedForMs * 2, limits.openMsMax);
      return { state: 'open', openedForMs, until: call.now + openedForMs };
    }
  }
}

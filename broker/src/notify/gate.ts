/*
 * What stands between an endpoint's messages and the endpoint: a breaker, and a hold when it asked
 * for patience by Retry-After. While the gate is shut, deliveries wait in front of it. There are
 * never more of them than the subscription's concurrency, so the rest stays in the queue where it
 * costs nothing, and flows as soon as one call has got through.
 *
 * So a dead endpoint is called once in a while, by one message at a time, and each such call spends
 * an attempt of its message. One that waited in vain goes to a retry queue and spends none: a
 * handler may not run for ever.
 */

/** The breaker as pure functions of a state and a time; that of the folder that asks producers. */
export interface BreakerRules<State> {
  closed: State;
  /** Until when no call may be made, monotonic; `probing`: until the one that is made has ended. */
  shutUntil(breaker: State): number | 'probing' | undefined;
  begin(breaker: State): State;
  failed(breaker: State, call: { now: number; probe: boolean }): State;
}

export type Entry =
  /** A call may be made; `done` must follow. */
  | { kind: 'go'; probe: boolean }
  /** Not now, and not within the time that a delivery may wait. */
  | { kind: 'shut'; forMs: number; failing: boolean; detail: string };

export interface CallEnd {
  probe: boolean;
  /** Absent for an answer that shows the endpoint to be there. */
  failure?: string;
  /** It asked for that much patience. */
  holdMs?: number;
}

export interface Gate {
  /**
   * Waits until a call may be made, at most `WAIT_MS_MAX`. Impatient: does not wait for an endpoint
   * that fails. Rejects with the signal's reason.
   */
  enter(delivery: { impatient: boolean; signal: AbortSignal }): Promise<Entry>;
  /** `opened`: the endpoint has just stopped answering; `closed`: it answers again. */
  done(end: CallEnd): 'opened' | 'closed' | undefined;
  /** Nobody waits any more. */
  close(): void;
}

/** The breaker stays open for a minute at most, so who waits this long has seen a probe. */
export const WAIT_MS_MAX = 75_000;
/** How soon a message comes back that was sent away while a probe was under way. */
const PROBE_MS = 1_000;

export interface GateOptions<State> {
  breaker: BreakerRules<State>;
  /** Monotonic milliseconds. */
  now(): number;
}

export function createGate<State>({ breaker: rules, now }: GateOptions<State>): Gate {
  let breaker = rules.closed;
  let heldUntil = 0;
  let lastFailure = '';
  let closed = false;
  const waiting = new Set<() => void>();

  const wake = () => {
    for (const look of [...waiting]) look();
  };

  /** How long it stays shut; undefined when a call may be made. */
  function shut(): { forMs: number; failing: boolean } | undefined {
    const until = rules.shutUntil(breaker);
    const held = heldUntil - now();
    if (until === 'probing') return { forMs: Math.max(PROBE_MS, held), failing: true };
    const open = until === undefined ? 0 : until - now();
    const forMs = Math.ceil(Math.max(open, held));
    return forMs > 0 ? { forMs, failing: open > 0 } : undefined;
  }

  function whyShut(failing: boolean): string {
    if (closed) return 'the subscription ends';
    return failing ? `no call was made after ${lastFailure}` : 'the endpoint asked for patience';
  }

  /** Until something has changed, or the time is over. */
  function change(ms: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const look = () => {
        clearTimeout(timer);
        waiting.delete(look);
        signal.removeEventListener('abort', look);
        resolve();
      };
      const timer = setTimeout(look, ms);
      waiting.add(look);
      signal.addEventListener('abort', look, { once: true });
    });
  }

  return {
    async enter({ impatient, signal }) {
      const until = now() + WAIT_MS_MAX;
      for (;;) {
        signal.throwIfAborted();
        const still = shut();
        if (still === undefined && !closed) {
          const probe = rules.shutUntil(breaker) !== undefined;
          breaker = rules.begin(breaker);
          return { kind: 'go', probe };
        }
        const { forMs, failing } = still ?? { forMs: PROBE_MS, failing: false };
        const left = until - now();
        if (closed || left <= 0 || (impatient && failing)) {
          return { kind: 'shut', forMs, failing, detail: whyShut(failing) };
        }
        await change(Math.min(forMs, left), signal);
      }
    },
    done({ probe, failure, holdMs }) {
      const before = rules.shutUntil(breaker);
      if (holdMs !== undefined) heldUntil = Math.max(heldUntil, now() + holdMs);
      if (failure === undefined) {
        breaker = rules.closed;
      } else {
        lastFailure = failure;
        breaker = rules.failed(breaker, { now: now(), probe });
      }
      const after = rules.shutUntil(breaker);
      wake();
      if (before === undefined && after !== undefined) return 'opened';
      return before !== undefined && after === undefined ? 'closed' : undefined;
    },
    close() {
      closed = true;
      wake();
    },
  };
}

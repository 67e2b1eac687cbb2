import { setTimeout as sleep } from 'node:timers/promises';

export interface Late<T> {
  /** The error for whoever waited too long. */
  error(): Error;
  /** Receives what arrives after the limit, so that it can be given back. */
  giveBack?(value: T): void;
}

/**
 * Waits for `work`, at most `limitMs`. The work itself goes on: `late.giveBack` gets its result,
 * and its late error is dropped, because the one who waited has already been told.
 */
export function within<T>(work: Promise<T>, limitMs: number, late: Late<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    let isOver = false;
    const timer = setTimeout(() => {
      isOver = true;
      reject(late.error());
    }, limitMs);
    work.then(
      (value) => {
        clearTimeout(timer);
        if (isOver) late.giveBack?.(value);
        else resolve(value);
      },
      (error: unknown) => {
        clearTimeout(timer);
        reject(error);
      },
    );
  });
}

/** A point in time on the monotonic clock: setting the system's clock moves no deadline. */
export class Deadline {
  readonly limitMs: number;
  readonly #endsAt: number;

  constructor(limitMs: number) {
    this.limitMs = limitMs;
    this.#endsAt = performance.now() + limitMs;
  }

  /** Milliseconds left, 0 when it has passed. */
  get leftMs(): number {
    return Math.max(0, this.#endsAt - performance.now());
  }

  get hasPassed(): boolean {
    return this.leftMs === 0;
  }

  /** Sleeps, and answers false at once where the deadline would pass meanwhile. */
  async pause(delayMs: number): Promise<boolean> {
    if (delayMs >= this.leftMs) return false;
    // A timer of 0 ms takes a whole one: too dear for a call that has nothing to wait for.
    // Rounded up, as a timer cuts off fractions: whoever asked for a pause gets all of it.
    if (delayMs > 0) await sleep(Math.ceil(delayMs));
    return true;
  }
}

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

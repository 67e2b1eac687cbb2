import { setTimeout as sleep } from 'node:timers/promises';

/** What happens where somebody waits too long. */
export interface Late<T> {
  /** The error for whoever waited too long. */
  error(): Error;
  /** Receives what arrives after the limit, so that it can be given back. @default it is dropped */
  giveBack?(value: T): void;
  /** Ends the wait as the limit does; its reason is thrown. @default the limit alone ends it */
  signal?: AbortSignal | undefined;
}

/**
 * Waits for `work`, at most `limitMs`. The work itself goes on: `late.giveBack` gets its result,
 * and its late error is dropped, because the one who waited has already been told.
 */
export function within<T>(work: Promise<T>, limitMs: number, late: Late<T>): Promise<T> {
  const { signal } = late;
  return new Promise<T>((resolve, reject) => {
    let isOver = false;
    const endWait = () => {
      isOver = true;
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
    };
    const onAbort = () => {
      endWait();
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      endWait();
      reject(late.error());
    }, limitMs);
    work.then(
      (value) => {
        if (isOver) {
          late.giveBack?.(value);
          return;
        }
        endWait();
        resolve(value);
      },
      (error: unknown) => {
        endWait();
        reject(error);
      },
    );
    if (signal?.aborted) onAbort();
    else signal?.addEventListener('abort', onAbort);
  });
}

/** A point in time on the monotonic clock: setting the system's clock moves no deadline. */
export class Deadline {
  /** How long it was from the start, in milliseconds. */
  readonly limitMs: number;
  readonly #endsAt: number;

  /** Counts from now. @param limitMs milliseconds */
  constructor(limitMs: number) {
    this.limitMs = limitMs;
    this.#endsAt = performance.now() + limitMs;
  }

  /** Whole milliseconds left, rounded up; 0 when it has passed. */
  get leftMs(): number {
    return Math.max(0, Math.ceil(this.#endsAt - performance.now()));
  }

  /** Whether nothing is left. */
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

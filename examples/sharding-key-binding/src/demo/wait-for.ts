import { setTimeout as pause } from 'node:timers/promises';

/** Between two looks at a condition. */
const POLL_MS = 100;

/** For a step that usually takes a few seconds: room for a machine with other things to do. */
export const STEP_MS_MAX = 90_000;

/**
 * Waits until `condition` returns something else than undefined, and returns that.
 *
 * @param what ends the sentence "waited 90 s in vain for …"
 * @throws Error with that sentence, after `limitMs` @default 90 s
 */
export async function waitFor<T>(
  what: string,
  condition: () => Promise<T | undefined>,
  limitMs: number = STEP_MS_MAX,
): Promise<T> {
  const startedAt = performance.now();
  for (;;) {
    const value = await within(what, limitMs, condition());
    if (value !== undefined) return value;
    if (performance.now() - startedAt > limitMs) throw inVain(what, limitMs);
    await pause(POLL_MS);
  }
}

/** Waits for `work`, at most `limitMs`; the work itself goes on. @throws Error as `waitFor` does */
export async function within<T>(what: string, limitMs: number, work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const tooLong = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(inVain(what, limitMs)), limitMs);
  });
  try {
    return await Promise.race([work, tooLong]);
  } finally {
    clearTimeout(timer);
  }
}

function inVain(what: string, limitMs: number): Error {
  return new Error(`waited ${Math.round(limitMs / 1000)} s in vain for ${what}`);
}

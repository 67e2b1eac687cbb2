import { setTimeout as pause } from 'node:timers/promises';

/** Between two looks at the condition. */
const POLL_MS = 20;

/**
 * Waits until `condition` holds, for tests of what happens in its own time.
 * @param what ends the sentence "waited 20000 ms in vain until …"
 * @param timeoutMs @default 20000: what a machine that others use as well has taken 10 s for has
 *   happened, and a unit test still says what it waited for before its own 30 s are over
 */
export async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  timeoutMs = 20_000,
): Promise<void> {
  const startedAt = performance.now();
  while (!(await condition())) {
    if (performance.now() - startedAt > timeoutMs) {
      throw new Error(`waited ${timeoutMs} ms in vain until ${what}`);
    }
    await pause(POLL_MS);
  }
}

import { jest } from '@jest/globals';
import { until } from './until.js';

const MINUTE_MS = 60_000;

/** Prisma ends its transactions by itself after a day. */
const LONGEST_MS = 120 * MINUTE_MS;

/**
 * Waits of minutes and hours end when the test says so, until `jest.restoreAllMocks()`; all others are
 * those of drivers, and go on.
 */
export function minutesByHand() {
  const [set, clear] = [setTimeout, clearTimeout];
  const waiting = new Map<object, { delayMs: number; end: () => void }>();
  let passed = 0;
  jest.spyOn(globalThis, 'setTimeout').mockImplementation(((end: () => void, delayMs: number) => {
    if (delayMs < MINUTE_MS || delayMs > LONGEST_MS) return set(end, delayMs);
    const timer = { unref: () => timer };
    waiting.set(timer, { delayMs, end });
    return timer;
  }) as typeof setTimeout);
  jest.spyOn(globalThis, 'clearTimeout').mockImplementation(((timer: object) => {
    if (!waiting.delete(timer)) clear(timer as NodeJS.Timeout);
  }) as typeof clearTimeout);
  return {
    waitsMs: () => [...waiting.values()].map(({ delayMs }) => delayMs),
    /** How many waits have ended. */
    passed: () => passed,
    /** Ends whatever waits, again and again, until that holds. */
    pass: (what: string, condition: () => Promise<boolean>) =>
      until(what, async () => {
        for (const [timer, { end }] of waiting) {
          waiting.delete(timer);
          passed += 1;
          end();
        }
        return condition();
      }),
  };
}

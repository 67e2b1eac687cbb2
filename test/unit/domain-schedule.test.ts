import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { backOffMs, FORWARD_BACK_OFF } from '../../broker/src/domain/schedule.js';

const FLOOR_MS = 100;
const POLICY = { firstDelayMs: 1_000, delayMsMax: 300_000 };

test('delays double from the first one up to the cap', () => {
  const delays = [1, 2, 3, 4, 9, 10, 1_000].map((attempt) => backOffMs(POLICY, attempt));
  expect(delays).toEqual([1_000, 2_000, 4_000, 8_000, 256_000, 300_000, 300_000]);
});

test('jitter is a fifth to either side, and none in the middle', () => {
  const delays = [0, 0.25, 0.5, 0.75].map((jitter) => backOffMs({ ...POLICY, jitter }, 1));
  expect(delays).toEqual([800, 900, 1_000, 1_100]);
  expect(backOffMs({ ...POLICY, jitter: 1 - Number.EPSILON }, 1)).toBe(1_200);
});

test('a first delay of 0 is raised to the floor, so that "unknown" makes no hot loop', () => {
  expect(backOffMs({ firstDelayMs: 0, delayMsMax: 300_000 }, 1)).toBe(FLOOR_MS);
  expect(backOffMs({ firstDelayMs: 0, delayMsMax: 300_000 }, 3)).toBe(400);
});

describe('for any policy', () => {
  const anyPolicy = fc.record({
    firstDelayMs: fc.nat(24 * 3_600_000),
    delayMsMax: fc.integer({ min: FLOOR_MS, max: 24 * 3_600_000 }),
    jitter: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  });
  const anyAttempt = fc.integer({ min: 1, max: 1_000_000 });

  test('a delay is whole, never below the floor and never a fifth beyond the cap', () => {
    fc.assert(
      fc.property(anyPolicy, anyAttempt, (policy, attempt) => {
        const delay = backOffMs(policy, attempt);
        expect(Number.isInteger(delay)).toBe(true);
        expect(delay).toBeGreaterThanOrEqual(FLOOR_MS);
        expect(delay).toBeLessThanOrEqual(Math.ceil(policy.delayMsMax * 1.2));
      }),
    );
  });

  test('a later attempt never waits less', () => {
    fc.assert(
      fc.property(anyPolicy, anyAttempt, (policy, attempt) => {
        expect(backOffMs(policy, attempt + 1)).toBeGreaterThanOrEqual(backOffMs(policy, attempt));
      }),
    );
  });
});

test('twenty rounds of forwarding take about an hour', () => {
  let total = 0;
  for (let attempt = 1; attempt < 20; attempt += 1) total += backOffMs(FORWARD_BACK_OFF, attempt);
  expect(total / 3_600_000).toBeGreaterThan(0.75);
  expect(total / 3_600_000).toBeLessThan(1.25);
});

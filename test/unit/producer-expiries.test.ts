import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import fc from 'fast-check';
import { Deadline } from '../../database/src/deadline.js';
import { createExpiries } from '../../producer-sdk/src/client/expiries.js';

interface Call {
  deadline: Deadline;
  startedAt: number;
}

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

/** Timers cut off fractions of a millisecond and then look once more. */
const LATE_MS_MAX = 2;

function recorded() {
  const told = new Map<Call, number[]>();
  const expiries = createExpiries<Call>((call) => {
    told.set(call, [...(told.get(call) ?? []), performance.now()]);
  });
  const begin = (limitMs: number): Call => {
    const call = { deadline: new Deadline(limitMs), startedAt: performance.now() };
    expiries.add(call);
    return call;
  };
  return { expiries, told, begin };
}

const step = fc.oneof(
  fc.record({ begin: fc.constantFrom(5, 20, 20.5, 50) }),
  fc.record({ end: fc.nat(50) }),
  fc.record({ passMs: fc.integer({ min: 1, max: 30 }) }),
);

test('whatever begins, ends and passes: a call is told once, at its deadline, unless it ended before', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
      const { expiries, told, begin } = recorded();
      const calls: Call[] = [];
      const ended = new Set<Call>();
      for (const one of steps) {
        if ('begin' in one) calls.push(begin(one.begin));
        else if ('passMs' in one) jest.advanceTimersByTime(one.passMs);
        else if (calls.length > 0) {
          const call = calls[one.end % calls.length]!;
          // Also what was told already ends: `settle` deletes every call.
          if (!told.has(call)) ended.add(call);
          expiries.delete(call);
        }
      }
      jest.advanceTimersByTime(100);
      for (const call of calls) {
        const times = told.get(call) ?? [];
        expect(times).toHaveLength(ended.has(call) ? 0 : 1);
        for (const at of times) {
          const waitedMs = at - call.startedAt;
          expect(waitedMs).toBeGreaterThanOrEqual(call.deadline.limitMs);
          expect(waitedMs).toBeLessThanOrEqual(call.deadline.limitMs + LATE_MS_MAX);
        }
      }
      // A timer left behind would keep a process alive that has nothing more to do.
      expect(jest.getTimerCount()).toBe(0);
    }),
    { numRuns: 500 },
  );
});

test('many calls of one limit wait by one timer, and none when the last has ended', () => {
  const { expiries, begin } = recorded();
  const calls = Array.from({ length: 1_000 }, () => begin(50));
  calls.push(begin(20));
  expect(jest.getTimerCount()).toBe(2);
  for (const call of calls) expiries.delete(call);
  expect(jest.getTimerCount()).toBe(0);
});

test('the end of the oldest call does not put off the others', () => {
  const { expiries, told, begin } = recorded();
  const oldest = begin(50);
  jest.advanceTimersByTime(10);
  const next = begin(50);
  expiries.delete(oldest);
  jest.advanceTimersByTime(50);
  expect([...told.keys()]).toEqual([next]);
});

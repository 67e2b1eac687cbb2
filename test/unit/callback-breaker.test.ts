import { expect, test } from '@jest/globals';
import type { Breaker } from '../../broker/src/callback/breaker.js';
import {
  BREAKER_LIMITS,
  beginCall,
  CLOSED,
  callFailed,
  mayCall,
} from '../../broker/src/callback/breaker.js';

const fail = (breaker: Breaker, now: number, probe = false) =>
  callFailed(breaker, { now, probe }, BREAKER_LIMITS);

function failTimes(times: number, now: number): Breaker {
  let breaker = CLOSED;
  for (let n = 0; n < times; n += 1) breaker = fail(breaker, now);
  return breaker;
}

test('four failures in a row leave it closed, the fifth opens it for five seconds', () => {
  expect(mayCall(failTimes(4, 0), 0)).toBe(true);
  const open = failTimes(5, 1_000);
  expect(mayCall(open, 1_000)).toBe(false);
  expect(mayCall(open, 5_999)).toBe(false);
  expect(mayCall(open, 6_000)).toBe(true);
});

test('after its time it lets one probe through and nobody else', () => {
  const probing = beginCall(failTimes(5, 0));
  expect(probing.state).toBe('halfOpen');
  expect(mayCall(probing, 1_000_000)).toBe(false);
});

test('every probe that fails doubles the time, up to a minute', () => {
  let breaker = failTimes(5, 0);
  const openedForMs: number[] = [];
  for (let n = 0; n < 6; n += 1) {
    if (breaker.state === 'open') openedForMs.push(breaker.until);
    breaker = fail(beginCall(breaker), 0, true);
  }
  expect(openedForMs).toEqual([5_000, 10_000, 20_000, 40_000, 60_000, 60_000]);
});

test('a failure of a call that began before it opened changes nothing', () => {
  const open = failTimes(5, 0);
  expect(fail(open, 4_000)).toBe(open);
  const probing = beginCall(open);
  expect(fail(probing, 6_000)).toBe(probing);
});

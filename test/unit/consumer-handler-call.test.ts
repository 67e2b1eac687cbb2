import { setTimeout as pause } from 'node:timers/promises';
import { expect, test } from '@jest/globals';
import { type CallEnd, callHandler } from '../../consumer-sdk/src/delivery/handler-call.js';
import { Stop } from '../../consumer-sdk/src/delivery/stop.js';
import { TimeLimits } from '../../consumer-sdk/src/delivery/time-limits.js';

function call(handler: () => unknown, limits = new TimeLimits(10_000)) {
  const ends: CallEnd[] = [];
  const stop = new Stop();
  const abandoned = new Stop();
  const ended = new Promise<CallEnd>((resolve) => {
    callHandler({
      call: handler,
      stop,
      abandoned,
      limits,
      ended(end) {
        ends.push(end);
        resolve(end);
      },
    });
  });
  return { ends, stop, abandoned, ended };
}

test('a handler that returns no promise is over when it returns', () => {
  expect(call(() => 7).ends).toEqual([{ result: 7 }]);
  const error = new Error('no');
  const thrown = call(() => {
    throw error;
  });
  expect(thrown.ends).toEqual([{ error }]);
});

test('a handler that returns a promise is over when that is settled, once', async () => {
  const good = call(async () => 'done');
  expect(good.ends).toEqual([]);
  expect(await good.ended).toEqual({ result: 'done' });
  good.abandoned.stop(new Error('later'));
  expect(good.ends).toHaveLength(1);
  const error = new Error('no');
  const bad = call(async () => {
    throw error;
  });
  expect(await bad.ended).toEqual({ error });
});

test('an abandoned delivery ends the wait for its handler and stops its signal', () => {
  const { ends, stop, abandoned } = call(() => new Promise(() => {}));
  const reason = new Error('the channel is gone');
  abandoned.stop(reason);
  expect(ends).toEqual([{ error: reason }]);
  expect(stop.signal.reason).toBe(reason);
});

test('each of many handlers runs out of time after its own limit, by one timer', async () => {
  const limits = new TimeLimits(60);
  const first = call(() => new Promise(() => {}), limits);
  const quick = call(async () => 'quick', limits);
  await pause(30);
  const secondAt = performance.now();
  const second = call(() => new Promise(() => {}), limits);
  expect(await first.ended).toEqual({
    error: new Error('the handler did not finish within 60 ms'),
  });
  await second.ended;
  // A timer counts in whole ms and may be one early.
  expect(performance.now() - secondAt).toBeGreaterThanOrEqual(59);
  expect(second.stop.isStopped).toBe(true);
  expect(quick.ends).toEqual([{ result: 'quick' }]);
  // The timer starts again after a time without handlers.
  const third = call(() => new Promise(() => {}), limits);
  expect(await third.ended).toHaveProperty('error');
});

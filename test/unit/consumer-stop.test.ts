import { expect, test } from '@jest/globals';
import { Stop } from '../../consumer-sdk/src/delivery/stop.js';

test('a signal that is looked at before is aborted with the reason, once', () => {
  const stop = new Stop();
  const { signal } = stop;
  const reasons: unknown[] = [];
  stop.onStop((reason) => reasons.push(reason));
  expect([stop.isStopped, signal.aborted]).toEqual([false, false]);
  stop.stop('first');
  stop.stop('second');
  expect([stop.isStopped, signal.aborted, signal.reason]).toEqual([true, true, 'first']);
  expect(reasons).toEqual(['first']);
  expect(stop.signal).toBe(signal);
});

test('a signal that is looked at only afterwards is aborted already', () => {
  const stop = new Stop();
  stop.stop('gone');
  expect([stop.signal.aborted, stop.signal.reason]).toEqual([true, 'gone']);
});

test('who listens no longer is not told', () => {
  const stop = new Stop();
  stop.onStop(() => {
    throw new Error('told');
  });
  stop.onStop(undefined);
  stop.stop('gone');
  expect(stop.isStopped).toBe(true);
});

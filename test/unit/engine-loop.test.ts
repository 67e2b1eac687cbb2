import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import { startLoop } from '../../broker/src/engine/loop.js';
import { recordingObserver } from '../support/engine-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';

const IDLE_MS = 250;

beforeEach(() => {
  // Only the pauses; setImmediate and promises stay real.
  jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask', 'performance'] });
});
afterEach(() => {
  jest.useRealTimers();
});

/** Lets this much time pass, and what becomes ready by it run. */
async function pass(ms: number): Promise<void> {
  jest.advanceTimersByTime(ms);
  await whatIsReady();
}

function loopOf(onePass: () => Promise<boolean>) {
  const observer = recordingObserver();
  let passes = 0;
  const loop = startLoop({
    name: 'try',
    pass: () => {
      passes += 1;
      return onePass();
    },
    idleMs: IDLE_MS,
    observer,
  });
  return { loop, observer, passes: () => passes };
}

test('the first pass begins at once, and the next one after the pause', async () => {
  const { loop, passes } = loopOf(async () => false);
  await whatIsReady();
  expect(passes()).toBe(1);
  await pass(IDLE_MS - 1);
  expect(passes()).toBe(1);
  await pass(1);
  expect(passes()).toBe(2);
  await loop.stop();
});

test('while there is more to do, pass follows pass without a pause', async () => {
  let left = 5;
  const { loop, passes } = loopOf(async () => {
    left -= 1;
    return left > 0;
  });
  await whatIsReady();
  expect(passes()).toBe(5);
  await loop.stop();
});

test('between two full passes other work gets its turn', async () => {
  let stopped = false;
  const { loop, passes } = loopOf(async () => !stopped);
  await new Promise((resolve) => setImmediate(resolve));
  const before = passes();
  await new Promise((resolve) => setImmediate(resolve));
  expect(passes() - before).toBeLessThanOrEqual(2);
  stopped = true;
  await loop.stop();
});

test('a wake ends the pause', async () => {
  const { loop, passes } = loopOf(async () => false);
  await whatIsReady();
  loop.wake();
  await whatIsReady();
  expect(passes()).toBe(2);
  expect(jest.getTimerCount()).toBe(1);
  await loop.stop();
});

test('a wake during a pass makes one more follow at once, as the pass may have looked too early', async () => {
  const first = deferred<boolean>();
  let calls = 0;
  const { loop, passes } = loopOf(async () => {
    calls += 1;
    return calls === 1 ? first.promise : false;
  });
  loop.wake();
  first.resolve(false);
  await whatIsReady();
  expect(passes()).toBe(2);
  await loop.stop();
});

test('a pass that fails is reported and tried again after a pause that grows up to five seconds', async () => {
  const error = new Error('the store is away');
  const { loop, observer, passes } = loopOf(async () => {
    throw error;
  });
  await whatIsReady();
  expect(observer.failures).toEqual([['try', error]]);
  for (const pauseMs of [500, 1_000, 2_000, 4_000, 5_000, 5_000]) {
    const before = passes();
    await pass(pauseMs - 1);
    expect(passes()).toBe(before);
    await pass(1);
    expect(passes()).toBe(before + 1);
  }
  await loop.stop();
});

test('a pass that works again ends the growing of the pause', async () => {
  let works = false;
  const { loop, passes } = loopOf(async () => {
    if (!works) throw new Error('away');
    return false;
  });
  await whatIsReady();
  await pass(500);
  await pass(1_000);
  works = true;
  await pass(2_000);
  const before = passes();
  works = false;
  await pass(IDLE_MS);
  expect(passes()).toBe(before + 1);
  await pass(500);
  expect(passes()).toBe(before + 2);
  await loop.stop();
});

test('a pass that throws before its first await is reported as well', async () => {
  const { loop, observer } = loopOf(() => {
    throw new Error('at once');
  });
  await whatIsReady();
  expect(observer.failures).toHaveLength(1);
  await loop.stop();
});

test('stop waits for the pass under way and begins no other', async () => {
  const running = deferred<boolean>();
  const { loop, passes } = loopOf(() => running.promise);
  let stopped = false;
  const stopping = loop.stop().then(() => {
    stopped = true;
  });
  loop.wake();
  await whatIsReady();
  expect(stopped).toBe(false);
  running.resolve(true);
  await stopping;
  expect(passes()).toBe(1);
  expect(jest.getTimerCount()).toBe(0);
});

test('stop ends a pause', async () => {
  const { loop, passes } = loopOf(async () => false);
  await whatIsReady();
  await loop.stop();
  expect(passes()).toBe(1);
  expect(jest.getTimerCount()).toBe(0);
});

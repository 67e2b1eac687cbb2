import { EscrowError } from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { createReadiness } from '../../broker/src/readiness.js';
import { createStoreStanding } from '../../broker/src/store-standing.js';
import { recordingObserver } from '../support/engine-fakes.js';
import { whatIsReady } from '../support/ready.js';

beforeEach(() => {
  jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask'] });
});
afterEach(() => {
  jest.useRealTimers();
});

function standingOf(proveWritable: () => Promise<void>) {
  const observer = recordingObserver();
  let writes = 0;
  const standing = createStoreStanding(() => observer);
  const store = {
    proveWritable: () => {
      writes += 1;
      return proveWritable();
    },
  };
  return { standing, observer, store, writes: () => writes };
}

const readOnly = () =>
  Promise.reject(new EscrowError('STORE_UNAVAILABLE', 'the MySQL store is read-only (1290)'));

describe('U10: whether the store can be used', () => {
  test('a thousand probes in a second are one write', async () => {
    const { standing, store, writes } = standingOf(async () => undefined);
    standing.opened(store);
    await Promise.all(Array.from({ length: 500 }, () => standing.trouble()));
    await Promise.all(Array.from({ length: 500 }, () => standing.trouble()));
    expect(writes()).toBe(1);
    jest.advanceTimersByTime(1_001);
    expect(await standing.trouble()).toBeUndefined();
    expect(writes()).toBe(2);
  });

  test('a store that only reads is told in words, and its recovery seen by the next probe', async () => {
    let prove: () => Promise<void> = readOnly;
    const { standing, store, observer } = standingOf(() => prove());
    standing.opened(store);
    expect(await standing.trouble()).toBe('the MySQL store is read-only (1290)');
    expect(observer.failures).toHaveLength(1);
    prove = async () => undefined;
    expect(await standing.trouble()).toBeUndefined();
    expect(observer.recoveries).toEqual(['STORE_UNAVAILABLE']);
  });

  test('one that does not answer keeps a probe for two seconds, and gets one write', async () => {
    const { standing, store, writes } = standingOf(() => new Promise(() => undefined));
    standing.opened(store);
    const said = Promise.all([standing.trouble(), standing.trouble()]);
    await whatIsReady();
    jest.advanceTimersByTime(2_000);
    expect(await said).toEqual(Array(2).fill('does not answer within 2000 ms'));
    expect(writes()).toBe(1);
  });

  test('readiness says the same', async () => {
    const { standing, store } = standingOf(readOnly);
    const readiness = createReadiness({
      store: standing,
      rabbit: () => ({ status: 'connected', problems: {} }),
    });
    expect(await readiness.read()).toMatchObject({
      ready: false,
      checks: { store: 'is being opened' },
    });
    standing.waitsFor(new Error('ECONNREFUSED'));
    expect((await readiness.read()).checks.store).toBe('is waited for: ECONNREFUSED');
    standing.opened(store);
    expect(await readiness.read()).toMatchObject({
      ready: false,
      checks: { store: expect.stringContaining('read-only') },
    });
  });
});

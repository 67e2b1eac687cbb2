import { describe, expect, test } from '@jest/globals';
import { createHeldTransactions } from '../../broker/src/engine/held-transactions.js';
import { purgeOnce, type RetentionDeps } from '../../broker/src/engine/retention.js';
import { createStoreClock } from '../../broker/src/engine/store-clock.js';
import { currentId, recordingObserver } from '../support/engine-fakes.js';
import { newTransaction } from '../support/store-fixtures.js';

describe('held transactions', () => {
  /** An entry costs its bytes and 500 more. */
  const held = (bytes: number) => ({ ...newTransaction({ id: currentId() }), bytes: bytes - 500 });

  test('what was put can be taken once', () => {
    const memory = createHeldTransactions(10_000);
    const transaction = held(1_000);
    memory.put(transaction);
    const { id, producerGroup, expects, trace, preparedAt, messages } = transaction;
    // Nothing of what only the store needed.
    expect(memory.take(id)).toEqual({
      ...{ id, producerGroup, expects, trace, preparedAt, messages },
      pending: 0b1,
      attempts: 0,
      ...{ decidedAt: undefined, ready: 0b1, nextDueAt: undefined, blocked: 0 },
    });
    expect(memory.take(transaction.id)).toBeUndefined();
  });

  test('it fills to its last byte, and then the oldest go', () => {
    const memory = createHeldTransactions(3_000);
    const [a, b, c, d] = [held(1_000), held(1_000), held(1_000), held(1_001)];
    for (const transaction of [a, b, c]) memory.put(transaction);
    memory.put(d);
    expect([a, b, c, d].map(({ id }) => memory.take(id) !== undefined)).toEqual([
      false,
      false,
      true,
      true,
    ]);
  });

  test('what was taken makes room', () => {
    const memory = createHeldTransactions(2_000);
    const [a, b, c] = [held(1_000), held(1_000), held(1_000)];
    memory.put(a);
    memory.put(b);
    memory.take(b.id);
    memory.put(c);
    expect(memory.take(a.id)?.id).toBe(a.id);
    expect(memory.take(c.id)?.id).toBe(c.id);
  });

  test('what is put twice counts once, and counts as young again', () => {
    const memory = createHeldTransactions(3_000);
    const [a, b, c] = [held(1_000), held(1_000), held(2_000)];
    memory.put(a);
    memory.put(b);
    memory.put(a);
    memory.put(c);
    expect(memory.take(b.id)).toBeUndefined();
    expect(memory.take(a.id)?.id).toBe(a.id);
    expect(memory.take(c.id)?.id).toBe(c.id);
  });

  test('what is larger than all of it is not kept; without room nothing is', () => {
    const small = createHeldTransactions(999);
    const large = held(1_000);
    small.put(large);
    expect(small.take(large.id)).toBeUndefined();

    const none = createHeldTransactions(0);
    none.put(held(600));
    none.put(large);
    expect(none.take(large.id)).toBeUndefined();
  });
});

describe('the clock of the store', () => {
  test('it is carried on by the monotonic clock, and is never ahead of the store’s', async () => {
    let monotonicMs = 1_000;
    const store = {
      async now() {
        monotonicMs += 10;
        return 500_000;
      },
    };
    const clock = await createStoreClock(store, () => monotonicMs);
    expect(clock.now()).toBe(500_000);
    monotonicMs += 60_000.4;
    expect(clock.now()).toBe(560_000);
  });

  test('a sync takes over what the store says now, forwards or backwards', async () => {
    let storeNow = 500_000;
    const clock = await createStoreClock({ now: async () => storeNow }, () => 0);
    storeNow = 400_000;
    await clock.sync();
    expect(clock.now()).toBe(400_000);
  });

  test('a sync that fails changes nothing', async () => {
    let monotonicMs = 0;
    let away = false;
    const store = {
      async now() {
        if (away) throw new Error('the store is away');
        return 500_000;
      },
    };
    const clock = await createStoreClock(store, () => monotonicMs);
    away = true;
    monotonicMs = 7;
    await expect(clock.sync()).rejects.toThrow('away');
    expect(clock.now()).toBe(500_007);
  });
});

describe('retention', () => {
  const BATCH = 500;
  const KEPT = { finishedKeptMs: 3_600_000, tombstonesKeptMs: 86_400_000 };

  /** A store with so many finished rows and tombstones, and every purge that it was asked for. */
  function purging(finished: number, tombstones: number, changes: Partial<RetentionDeps> = {}) {
    const left = { finished, tombstones };
    const asked: string[] = [];
    const purge =
      (kind: keyof typeof left, keptMs: number) =>
      async ({ olderThanMs, limit }: { olderThanMs: number; limit: number }) => {
        expect([olderThanMs, limit]).toEqual([keptMs, BATCH]);
        asked.push(kind);
        const count = Math.min(left[kind], limit);
        left[kind] -= count;
        return count;
      };
    const observer = recordingObserver();
    const deps: RetentionDeps = {
      ...KEPT,
      store: {
        purgeFinished: purge('finished', KEPT.finishedKeptMs),
        purgeTombstones: purge('tombstones', KEPT.tombstonesKeptMs),
      },
      observer,
      stopping: () => false,
      ...changes,
    };
    return { deps, left, asked, observer };
  }

  test('everything that is over goes, batch after batch, and is counted', async () => {
    const { deps, left, observer } = purging(1_200, 700);
    expect(await purgeOnce(deps)).toBe(1_200);
    expect(left).toEqual({ finished: 0, tombstones: 0 });
    expect(observer.counts).toEqual([['purged', {}, 1_200]]);
  });

  test('a batch that is not full is the last one', async () => {
    const { deps, asked } = purging(BATCH - 1, BATCH);
    await purgeOnce(deps);
    expect(asked).toEqual(['finished', 'tombstones', 'tombstones']);
  });

  test('a stop ends the pass after the batch under way, and what went is counted', async () => {
    const { deps, asked, observer } = purging(5_000, 5_000);
    expect(await purgeOnce({ ...deps, stopping: () => asked.length >= 2 })).toBe(2 * BATCH);
    expect(asked).toEqual(['finished', 'finished']);
    expect(observer.counts).toEqual([['purged', {}, 2 * BATCH]]);
  });
});

import { expect, test } from '@jest/globals';
import { deferred } from '../ready.js';
import { type Bench, cutConnection, failure, message } from './bench.js';

/** More connections than any layer here opens unless it is told to: ten. */
const POOL_SIZE_MAX = 12;

export function describeLimits<Tx>(bench: Bench<Tx>): void {
  test('a callback that takes too long is cut off and rolled back', async () => {
    const { engine, layer } = bench;
    const hasty = bench.producerOf({ transactionTimeoutMs: 1_000 });
    const thrown = await failure(
      hasty.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        await new Promise(() => {});
      }),
    );
    expect(thrown).toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('transactionTimeoutMs'),
    });
    expect(bench.atBroker().state).toBe('rolledBack');
    expect(await engine.accounts()).toEqual([]);
  });

  test('a connection that is lost in the callback rolls both sides back', async () => {
    const { engine, layer, producer } = bench;
    if (engine.dialect === 'sqlite') return;
    const thrown = await failure(
      producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        await cutConnection(engine, layer.enlistable(tx).executor);
        await layer.insert(tx, 2);
      }),
    );
    expect(thrown).not.toHaveProperty('code', 'TRANSACTION_MISUSED');
    const { id, state } = bench.atBroker();
    expect(state).toBe('rolledBack');
    expect(await engine.barrier(id)).not.toBe('commit');
    expect(await engine.accounts()).toEqual([]);
  });

  test('a pool without a free connection fails the call, and a transaction that opens late writes nothing', async () => {
    const { engine, layer } = bench;
    const gate = deferred();
    const holders = Array.from({ length: POOL_SIZE_MAX }, () => layer.begin(() => gate.promise));
    // Those that find no connection within the layer's own limits fail, and need not succeed here.
    const released = Promise.allSettled(holders);
    const hasty = bench.producerOf({ connectionTimeoutMs: 200 });
    let isCalled = false;
    const thrown = await failure(
      hasty.transaction(layer.database, message, async () => {
        isCalled = true;
      }),
    );
    expect(thrown).toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
    // The broker was told, or not asked in the first place: the identity of the barrier table is
    // read first, where it is not known yet.
    const states = [...bench.broker.transactions.values()].map(({ state }) => state);
    expect(states.filter((state) => state !== 'rolledBack')).toEqual([]);
    gate.resolve();
    await released;
    const patient = bench.producerOf({ connectionTimeoutMs: 20_000 });
    await patient.transaction(layer.database, message, async (tx) => layer.insert(tx, 1));
    expect(isCalled).toBe(false);
    expect(await engine.accounts()).toEqual([1]);
  });

  test('forty transactions at once, some of which fail, agree with the broker one by one', async () => {
    const { engine, layer } = bench;
    const patient = bench.producerOf({ connectionTimeoutMs: 20_000 });
    const outcomes = await Promise.allSettled(
      Array.from({ length: 40 }, (_, n) =>
        patient.transaction(layer.database, message, async (tx) => {
          await layer.insert(tx, n);
          if (n % 4 === 0) throw new Error('mine');
        }),
      ),
    );
    const committed = outcomes.flatMap(({ status }, n) => (status === 'fulfilled' ? [n] : []));
    expect(committed).toHaveLength(30);
    expect(await engine.accounts()).toEqual(committed);
    const states = [...bench.broker.transactions.values()].map(({ state }) => state);
    expect(states.filter((state) => state === 'committed')).toHaveLength(30);
  });
}

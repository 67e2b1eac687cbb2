import { setTimeout as pause } from 'node:timers/promises';
import type { LocalDatabase } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import { type Bench, beginDeadlock, deadlock, failure, message } from './bench.js';
import { ENDINGS } from './endings.js';

/** A layer that takes its time between opening a transaction and handing it out. */
function slow<Tx>(database: LocalDatabase<Tx>, delayMs: number): LocalDatabase<Tx> {
  return {
    ...database,
    transaction: (work, limits) =>
      database.transaction(async (open) => {
        await pause(delayMs);
        return work(open);
      }, limits),
  };
}

export function describeMisuse<Tx>(bench: Bench<Tx>): void {
  test('a transaction that begins after its start deadline is refused before its callback (F13)', async () => {
    const { engine, layer } = bench;
    const hasty = bench.producerOf({ startDeadlineMs: 50 });
    let isCalled = false;
    const late = hasty.transaction(slow(layer.database, 60), message, async () => {
      isCalled = true;
    });
    expect(await failure(late)).toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('startDeadlineMs'),
    });
    expect(isCalled).toBe(false);
    const { id, state } = bench.atBroker();
    expect(state).toBe('rolledBack');
    expect(await engine.barrier(id)).toBeUndefined();
  });

  test('a check in another database than the transaction answers unknown, and writes nothing there (F20)', async () => {
    const { layer, producer, broker } = bench;
    const { id } = await producer.transaction(layer.database, message, (tx) => layer.insert(tx, 1));
    const { checkContext } = JSON.parse(broker.requests[0]!.body).operations[0];
    const elsewhere = await bench.openElsewhere();
    try {
      const { database } = elsewhere.layer;
      expect(await bench.check(id, { database, checkContext })).toBe('unknown');
      expect(await elsewhere.engine.barrier(id)).toBeUndefined();
    } finally {
      await elsewhere.close();
    }
    expect(await bench.check(id, { checkContext })).toBe('commit');
  });

  test.each(ENDINGS)(
    'a callback that ends the transaction by $by is told so, and the broker hears the truth',
    async ({ sql, outcome: outcomes }) => {
      const { engine, layer, producer } = bench;
      const outcome = outcomes[engine.name];
      const ended = producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        // SQLite refuses a second BEGIN, and PostgreSQL warns.
        await layer.run(tx, sql).catch((error: unknown) => {
          if (outcome !== undefined) throw error;
        });
        await layer.insert(tx, 2);
      });
      if (outcome === undefined) {
        expect(await ended).toMatchObject({ outcome: 'committed' });
        expect(await engine.accounts()).toEqual([1, 2]);
        return;
      }
      expect(await failure(ended)).toMatchObject({
        code: 'TRANSACTION_MISUSED',
        details: { outcome },
      });
      const { id, state } = bench.atBroker();
      expect(await engine.barrier(id)).toBe(outcome);
      expect(state).toBe(outcome === 'commit' ? 'committed' : 'rolledBack');
      expect((await engine.accounts()).includes(1)).toBe(outcome === 'commit');
    },
  );

  test('a swallowed error commits what the engine kept, and nothing where it kept nothing', async () => {
    const { engine, layer, producer } = bench;
    const ended = producer.transaction(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      await layer.insert(tx, 1).catch(() => undefined);
    });
    if (engine.dialect === 'postgres') {
      expect(await failure(ended)).toMatchObject({
        code: 'TRANSACTION_MISUSED',
        details: { outcome: 'rollback' },
      });
      expect(bench.atBroker().state).toBe('rolledBack');
      expect(await engine.accounts()).toEqual([]);
      return;
    }
    expect(await ended).toMatchObject({ outcome: 'committed' });
    expect(await engine.accounts()).toEqual([1]);
  });

  test('a callback that swallowed a deadlock and went on is not committed', async () => {
    const { engine, layer, producer } = bench;
    if (engine.dialect === 'sqlite') return;
    let said: unknown;
    const thrown = await failure(
      producer.transaction(layer.database, message, async (tx) => {
        said = await deadlock(bench, tx).catch((error: unknown) => error);
        await layer.insert(tx, 1).catch(() => undefined);
      }),
    );
    expect(said).toBeDefined();
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
    const { id, state } = bench.atBroker();
    expect(state).toBe('rolledBack');
    expect(await engine.barrier(id)).not.toBe('commit');
  });

  test('a missing barrier table is named, with the cure', async () => {
    const { engine, layer, producer } = bench;
    await engine.query('alter table escrow_barrier rename to hidden');
    try {
      const thrown = await failure(
        producer.transaction(layer.database, message, async (tx) => layer.insert(tx, 1)),
      );
      expect(thrown).toMatchObject({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringContaining('ensureBarrierTable'),
      });
      expect(await engine.accounts()).toEqual([]);
    } finally {
      await engine.query('alter table hidden rename to escrow_barrier');
    }
  });

  test('a statement that was not awaited is committed with the messages or not at all', async () => {
    const { engine, layer, producer } = bench;
    let floating: Promise<unknown> = Promise.resolve();
    const [settled] = await Promise.allSettled([
      producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        floating = layer.insert(tx, 2).catch(() => undefined);
      }),
    ]);
    await floating;
    const { id, state } = bench.atBroker();
    const isCommitted = settled?.status === 'fulfilled';
    expect(state).toBe(isCommitted ? 'committed' : 'rolledBack');
    expect(await engine.barrier(id)).toBe(isCommitted ? 'commit' : undefined);
    expect(await engine.accounts()).toEqual(isCommitted ? [1, 2] : []);
  });

  test('a statement that was not awaited and fails does not let the messages go alone', async () => {
    const { engine, layer, producer } = bench;
    let floating: Promise<unknown> = Promise.resolve();
    const [settled] = await Promise.allSettled([
      producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        floating = layer.insert(tx, 1).catch(() => undefined);
      }),
    ]);
    await floating;
    const isCommitted = settled?.status === 'fulfilled';
    expect(bench.atBroker().state).toBe(isCommitted ? 'committed' : 'rolledBack');
    expect(await engine.accounts()).toEqual(isCommitted ? [1] : []);
  });

  test('a deadlock in a statement that was not awaited does not let the messages go alone', async () => {
    const { engine, layer, producer } = bench;
    if (engine.dialect === 'sqlite') return;
    let over: Promise<unknown> = Promise.resolve();
    const [settled] = await Promise.allSettled([
      producer.transaction(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        const { mine, untangle } = await beginDeadlock(bench, tx);
        over = mine.catch(() => undefined).then(untangle);
      }),
    ]);
    await over;
    const isCommitted = settled?.status === 'fulfilled';
    expect(bench.atBroker().state).toBe(isCommitted ? 'committed' : 'rolledBack');
    expect((await engine.accounts()).includes(1)).toBe(isCommitted);
  });

  test('a statement after the end of the transaction is refused', async () => {
    const { engine, layer, producer } = bench;
    let kept: Tx | undefined;
    await producer.transaction(layer.database, message, async (tx) => {
      kept = tx;
      await layer.insert(tx, 1);
    });
    await expect((async () => layer.insert(kept as Tx, 2))()).rejects.toBeDefined();
    expect(await engine.accounts()).toEqual([1]);
  });
}

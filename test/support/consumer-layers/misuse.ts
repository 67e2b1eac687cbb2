import { latest, once } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import { deadlock } from '../producer-layers/bench.js';
import { ENDINGS } from '../producer-layers/endings.js';
import { type Bench, failure, newMessage } from './bench.js';

export function describeMisuse<Tx>(bench: Bench<Tx>): void {
  test.each(ENDINGS)(
    'work that ends the transaction by $by is told so, and what became of it',
    async ({ sql, outcome: outcomes }) => {
      const { engine, layer } = bench;
      const outcome = outcomes[engine.name];
      const message = newMessage();
      const ended = once(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        // SQLite refuses a second BEGIN, and PostgreSQL warns.
        await layer.run(tx, sql).catch((error: unknown) => {
          if (outcome !== undefined) throw error;
        });
        await layer.insert(tx, 2);
      });
      if (outcome === undefined) {
        expect(await ended).toBe('applied');
        expect(await engine.accounts()).toEqual([1, 2]);
        return;
      }
      expect(await failure(ended)).toMatchObject({
        code: 'TRANSACTION_MISUSED',
        details: { outcome },
      });
      const isCommitted = outcome === 'commit';
      expect(await bench.isConsumed(message)).toBe(isCommitted);
      expect((await engine.accounts()).includes(1)).toBe(isCommitted);
    },
  );

  test('latest tells likewise when its work ended the transaction by a COMMIT of its own', async () => {
    const { layer } = bench;
    const message = newMessage();
    const ended = latest(layer.database, message, { key: 'a', at: 1 }, async (tx) => {
      await layer.insert(tx, 1);
      await layer.run(tx, 'commit');
      await layer.insert(tx, 2);
    });
    expect(await failure(ended)).toMatchObject({
      code: 'TRANSACTION_MISUSED',
      details: { outcome: 'commit' },
    });
    expect(await bench.stored()).toEqual([{ time: 1, messageId: message.id }]);
  });

  test('a swallowed error applies what the engine kept, and nothing where it kept nothing', async () => {
    const { engine, layer } = bench;
    const message = newMessage();
    const ended = once(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      await layer.insert(tx, 1).catch(() => undefined);
    });
    if (engine.dialect === 'postgres') {
      expect(await failure(ended)).toMatchObject({
        code: 'TRANSACTION_MISUSED',
        details: { outcome: 'rollback' },
      });
      expect(await bench.isConsumed(message)).toBe(false);
      expect(await engine.accounts()).toEqual([]);
      return;
    }
    expect(await ended).toBe('applied');
    expect(await engine.accounts()).toEqual([1]);
  });

  test('work that swallowed a deadlock and went on is not applied', async () => {
    const { engine, layer } = bench;
    if (engine.dialect === 'sqlite') return;
    const message = newMessage();
    let said: unknown;
    const thrown = await failure(
      once(layer.database, message, async (tx) => {
        said = await deadlock(bench, tx).catch((error: unknown) => error);
        await layer.insert(tx, 1).catch(() => undefined);
      }),
    );
    expect(said).toBeDefined();
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
    expect(await bench.isConsumed(message)).toBe(false);
  });

  test('a deadlock that the work lets pass is thrown, and the next attempt applies the message', async () => {
    const { engine, layer } = bench;
    if (engine.dialect === 'sqlite') return;
    const message = newMessage();
    let said: unknown;
    const failing = once(layer.database, message, async (tx) => {
      said = await deadlock(bench, tx).catch((error: unknown) => error);
      throw said;
    });
    expect(await failure(failing)).toBe(said);
    expect(await bench.isConsumed(message)).toBe(false);
    await engine.query('delete from account');
    expect(await once(layer.database, message, (tx) => layer.insert(tx, 1))).toBe('applied');
  });

  test.each([
    ['is applied with the message or not at all', 2, [1, 2]],
    // Its key is taken.
    ['and fails does not leave the note alone', 1, [1]],
  ])('a statement that was not awaited %s', async (_, account, applied) => {
    const { engine, layer } = bench;
    const message = newMessage();
    let floating: Promise<unknown> = Promise.resolve();
    const [settled] = await Promise.allSettled([
      once(layer.database, message, async (tx) => {
        await layer.insert(tx, 1);
        floating = layer.insert(tx, account).catch(() => undefined);
      }),
    ]);
    await floating;
    const isApplied = settled?.status === 'fulfilled';
    expect(await bench.isConsumed(message)).toBe(isApplied);
    expect(await engine.accounts()).toEqual(isApplied ? applied : []);
  });

  test('a statement after the end of the transaction is refused', async () => {
    const { engine, layer } = bench;
    let kept: Tx | undefined;
    await once(layer.database, newMessage(), async (tx) => {
      kept = tx;
      await layer.insert(tx, 1);
    });
    await expect((async () => layer.insert(kept as Tx, 2))()).rejects.toBeDefined();
    expect(await engine.accounts()).toEqual([1]);
  });

  test.each([
    ['escrow_consumed', 'ensureConsumedTable'],
    ['escrow_latest', 'ensureLatestTable'],
  ])('a missing table %s is named, with the cure', async (table, cure) => {
    const { engine, layer } = bench;
    await engine.query(`alter table ${table} rename to hidden`);
    try {
      const work = (tx: Tx) => layer.insert(tx, 1);
      const thrown = await failure(
        table === 'escrow_latest'
          ? latest(layer.database, newMessage(), { key: 'a', at: 1 }, work)
          : once(layer.database, newMessage(), work),
      );
      expect(thrown).toMatchObject({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringContaining(cure),
      });
      expect(await engine.accounts()).toEqual([]);
    } finally {
      await engine.query(`alter table hidden rename to ${table}`);
    }
  });
}

import { setTimeout as pause } from 'node:timers/promises';
import { createDuplicateFront, once, onceBatch } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import { type Bench, failure, newMessage } from './bench.js';

/** Long enough for a second instance to come as far as it can. */
const OVERLAP_MS = 50;

export function describeBatch<Tx>(bench: Bench<Tx>): void {
  const messagesOf = (count: number) =>
    Array.from({ length: count }, (_, n) => ({ ...newMessage(), n }));
  const insertAll = async (tx: Tx, fresh: { n: number }[]) => {
    for (const { n } of fresh) await bench.layer.insert(tx, n);
  };
  const idsOf = (messages: readonly { id: string }[]) => messages.map(({ id }) => id);

  test('a batch applies what is fresh and leaves out what was applied before', async () => {
    const { layer, engine } = bench;
    const messages = messagesOf(6);
    await once(layer.database, messages[2]!, async () => {});
    const result = await onceBatch(layer.database, messages, insertAll);
    const fresh = messages.filter(({ n }) => n !== 2);
    expect(result).toEqual({ applied: idsOf(fresh), duplicates: [messages[2]!.id] });
    expect(await engine.accounts()).toEqual([0, 1, 3, 4, 5]);
    const again = await onceBatch(layer.database, messages, insertAll);
    expect(again).toEqual({ applied: [], duplicates: idsOf(messages) });
  });

  test('a message that stands twice in a batch is applied once', async () => {
    const { layer, engine } = bench;
    const [first, second] = messagesOf(2) as [{ id: string; group: string; n: number }, never];
    const result = await onceBatch(layer.database, [first, second, first], insertAll);
    expect(result).toEqual({ applied: idsOf([first, second]), duplicates: [first.id] });
    expect(await engine.accounts()).toEqual([0, 1]);
  });

  test('a batch whose work throws applies none of it', async () => {
    const { layer, engine } = bench;
    const messages = messagesOf(3);
    const mine = new Error('mine');
    const failing = onceBatch(layer.database, messages, async (tx, fresh) => {
      await insertAll(tx, fresh);
      throw mine;
    });
    expect(await failure(failing)).toBe(mine);
    expect(await engine.accounts()).toEqual([]);
    for (const message of messages) expect(await bench.isConsumed(message)).toBe(false);
  });

  test('batches that share messages in opposite orders, on two instances, apply each message once', async () => {
    const { layer, other, engine } = bench;
    const messages = messagesOf(8);
    const slowly = async (tx: Tx, fresh: { n: number }[]) => {
      await insertAll(tx, fresh);
      await pause(OVERLAP_MS);
    };
    const results = await Promise.all([
      onceBatch(layer.database, messages.slice(0, 6), slowly),
      onceBatch(other.database, messages.slice(2).reverse(), slowly),
    ]);
    const applied = results.flatMap((result) => result.applied);
    expect(applied.sort()).toEqual(idsOf(messages).sort());
    expect(await engine.accounts()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  });

  test('a front spares a batch what it knows', async () => {
    const { layer, engine } = bench;
    const front = createDuplicateFront();
    const messages = messagesOf(3);
    await once(layer.database, messages[1]!, async () => {}, { front });
    await engine.query('delete from escrow_consumed');
    const result = await onceBatch(layer.database, messages, insertAll, { front });
    expect(result.duplicates).toEqual([messages[1]!.id]);
    const again = await onceBatch(layer.database, messages, insertAll, { front });
    expect(again.applied).toEqual([]);
  });
}

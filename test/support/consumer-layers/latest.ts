import { setTimeout as pause } from 'node:timers/promises';
import { createDuplicateFront, latest, type OnceMessage } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import { type Bench, failure, newMessage } from './bench.js';

/** Long enough for a second instance to come as far as it can. */
const OVERLAP_MS = 50;

const ORDERS = [
  [1, 2, 3],
  [1, 3, 2],
  [2, 1, 3],
  [2, 3, 1],
  [3, 1, 2],
  [3, 2, 1],
];

export function describeLatest<Tx>(bench: Bench<Tx>): void {
  /** Overwrites the only account's phone with the time of what it applies. */
  const overwrite = (at: number) => async (tx: Tx) => {
    await bench.layer.run(tx, 'delete from account');
    await bench.layer.run(tx, `insert into account (id, phone) values (1, '${at}')`);
  };
  const phone = async () => (await bench.engine.query('select phone from account'))[0]?.phone;
  const apply = (message: OnceMessage, at: number, by = bench.layer, key = 'order:7') =>
    latest(by.database, message, { key, at }, overwrite(at));

  test.each(ORDERS)('news of times %i, %i and %i leave the latest', async (...times) => {
    let newest = 0;
    for (const at of times) {
      expect(await apply(newMessage(), at)).toBe(at > newest ? 'applied' : 'outdated');
      newest = Math.max(newest, at);
    }
    expect(await phone()).toBe('3');
  });

  test('a repeat is a duplicate, and another message of the same time is outdated', async () => {
    const message = newMessage();
    expect(await apply(message, 5)).toBe('applied');
    expect(await apply(message, 5)).toBe('duplicate');
    expect(await apply(newMessage(), 5)).toBe('outdated');
    expect(await apply(newMessage(), 4)).toBe('outdated');
    expect(await bench.stored()).toEqual([{ time: 5, messageId: message.id }]);
  });

  test('a repeat of what was overwritten is outdated', async () => {
    const message = newMessage();
    await apply(message, 5);
    await apply(newMessage(), 9);
    expect(await apply(message, 5)).toBe('outdated');
    expect(await phone()).toBe('9');
  });

  test('objects and groups are told apart byte by byte', async () => {
    const keys = ['a', 'A', 'a ', 'ä', 'a\u0308', 'é', '\u{1F600}', '7', '07', "o'clock", 'a\\'];
    for (const key of keys) {
      expect(await apply(newMessage(), 1, bench.layer, key)).toBe('applied');
      expect(await apply(newMessage({ group: 'other' }), 1, bench.layer, key)).toBe('applied');
    }
    expect(await bench.stored()).toHaveLength(2 * keys.length);
  });

  test('times are compared as whole numbers of any safe size', async () => {
    const times = [
      Number.MIN_SAFE_INTEGER,
      -1,
      0,
      9,
      10,
      2 ** 31,
      Date.now(),
      Number.MAX_SAFE_INTEGER - 1,
      Number.MAX_SAFE_INTEGER,
    ];
    for (const at of times) expect(await apply(newMessage(), at)).toBe('applied');
    for (const at of times) expect(await apply(newMessage(), at)).toBe('outdated');
    expect(await bench.stored()).toMatchObject([{ time: Number.MAX_SAFE_INTEGER }]);
  });

  test('work that throws leaves what was stored before, and the next attempt applies', async () => {
    await apply(newMessage(), 1);
    const message = newMessage();
    const mine = new Error('mine');
    const failing = latest(bench.layer.database, message, { key: 'order:7', at: 2 }, async (tx) => {
      await overwrite(2)(tx);
      throw mine;
    });
    expect(await failure(failing)).toBe(mine);
    expect(await phone()).toBe('1');
    expect(await apply(message, 2)).toBe('applied');
    expect(await phone()).toBe('2');
  });

  test.each([
    ['a new object', false],
    ['a known object', true],
  ])('of two instances with news of %s the later one stays', async (_of, isKnown) => {
    const { layer, other } = bench;
    for (let round = 0; round < 5; round += 1) {
      const key = `order:${round}`;
      if (isKnown) await apply(newMessage(), 1, layer, key);
      let running = 0;
      const call = (by: typeof layer, at: number) =>
        latest(by.database, newMessage(), { key, at }, async (tx) => {
          running += 1;
          expect(running).toBe(1);
          await overwrite(at)(tx);
          await pause(OVERLAP_MS);
          running -= 1;
        });
      const results = await Promise.all([call(layer, 3), call(other, 2)]);
      expect(results[0]).toBe('applied');
      expect(['applied', 'outdated']).toContain(results[1]);
      expect(await phone()).toBe('3');
    }
  });

  test('a message that two instances have at once is applied by one of them', async () => {
    const { layer, other } = bench;
    const message = newMessage();
    const results = await Promise.all([apply(message, 1, layer), apply(message, 1, other)]);
    expect(results.sort()).toEqual(['applied', 'duplicate']);
  });

  test('sixty news of six objects, all at once on two instances, leave the latest of each', async () => {
    const { layer, other, engine } = bench;
    const ids = [0, 1, 2, 3, 4, 5];
    // Rows that are there: an insert into a gap that another transaction has locked is a deadlock.
    await engine.query(`insert into account (id) values ${ids.map((id) => `(${id})`).join(', ')}`);
    const calls = Array.from({ length: 60 }, (_, n) => {
      const id = n % 6;
      // In an order that is neither rising nor falling.
      const at = ((n * 37) % 60) + 1;
      const { database } = n % 2 === 0 ? layer : other;
      return latest(database, newMessage(), { key: `order:${id}`, at }, (tx) =>
        layer.run(tx, `update account set phone = '${at}' where id = ${id}`),
      );
    });
    await Promise.all(calls);
    const rows = await engine.query('select id, phone from account order by id');
    const newest = ids.map((id) => {
      const times = calls.flatMap((_call, n) => (n % 6 === id ? [((n * 37) % 60) + 1] : []));
      return { id, phone: String(Math.max(...times)) };
    });
    expect(rows.map((row) => ({ id: Number(row.id), phone: row.phone }))).toEqual(newest);
  });

  test('the front knows what is stored at least, and asks about what is later', async () => {
    const { layer, engine } = bench;
    const front = createDuplicateFront();
    const message = newMessage();
    const call = (by: OnceMessage, at: number) =>
      latest(layer.database, by, { key: 'order:7', at, front }, overwrite(at));
    expect(await call(message, 5)).toBe('applied');
    // Behind the front's back: whoever asks the table now would apply it.
    await engine.query('delete from escrow_latest');
    expect(await call(message, 5)).toBe('duplicate');
    expect(await call(newMessage(), 5)).toBe('outdated');
    expect(await call(newMessage(), 4)).toBe('outdated');
    expect(await call(newMessage(), 6)).toBe('applied');
  });
}

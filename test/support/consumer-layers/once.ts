import { setTimeout as pause } from 'node:timers/promises';
import { createDuplicateFront, once, purgeConsumed } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import { newTransactionId } from '../publish.js';
import { deferred } from '../ready.js';
import { type Bench, failure, newMessage } from './bench.js';

/** Long enough for a second instance to come as far as it can. */
const OVERLAP_MS = 50;

export function describeOnce<Tx>(bench: Bench<Tx>): void {
  test('work is applied once, and a second time is a duplicate', async () => {
    const { layer, engine } = bench;
    const message = newMessage();
    const work = (tx: Tx) => layer.insert(tx, 1);
    expect(await once(layer.database, message, work)).toBe('applied');
    expect(await once(layer.database, message, work)).toBe('duplicate');
    expect(await engine.accounts()).toEqual([1]);
  });

  test('groups apply the same message each for itself, and their names tell capitals apart', async () => {
    const { layer, engine } = bench;
    const message = newMessage();
    for (const [n, group] of ['other', 'Other', message.group].entries()) {
      const work = (tx: Tx) => layer.insert(tx, n);
      expect(await once(layer.database, { ...message, group }, work)).toBe('applied');
    }
    expect(await engine.accounts()).toEqual([0, 1, 2]);
  });

  test('work that does nothing is applied as well', async () => {
    const message = newMessage();
    expect(await once(bench.layer.database, message, async () => {})).toBe('applied');
    expect(await bench.isConsumed(message)).toBe(true);
  });

  test('of two instances with the same message one waits and finds a duplicate (F67)', async () => {
    const { layer, other, engine } = bench;
    const message = newMessage();
    let running = 0;
    const work = async (tx: Tx) => {
      running += 1;
      expect(running).toBe(1);
      await layer.insert(tx, 1);
      await pause(OVERLAP_MS);
      running -= 1;
    };
    const results = await Promise.all([
      once(layer.database, message, work),
      once(other.database, message, work),
    ]);
    expect(results.sort()).toEqual(['applied', 'duplicate']);
    expect(await engine.accounts()).toEqual([1]);
  });

  test('when the first of two instances fails, the waiting one applies the message', async () => {
    const { layer, other, engine } = bench;
    const message = newMessage();
    let calls = 0;
    const work = async (tx: Tx) => {
      calls += 1;
      await layer.insert(tx, 1);
      await pause(OVERLAP_MS);
      if (calls === 1) throw new Error('the first fails');
    };
    const results = await Promise.allSettled([
      once(layer.database, message, work),
      once(other.database, message, work),
    ]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(calls).toBe(2);
    expect(await engine.accounts()).toEqual([1]);
  });

  test('twenty calls with five messages on two instances apply each of them once', async () => {
    const { layer, other, engine } = bench;
    const messages = Array.from({ length: 5 }, () => newMessage());
    const calls = Array.from({ length: 20 }, (_, n) => {
      const number = n % messages.length;
      const { database } = n % 2 === 0 ? layer : other;
      return once(database, messages[number]!, (tx) => layer.insert(tx, number));
    });
    const results = await Promise.all(calls);
    expect(results.filter((result) => result === 'applied')).toHaveLength(5);
    expect(await engine.accounts()).toEqual([0, 1, 2, 3, 4]);
  });

  test('work that throws leaves nothing behind, its error comes back, and the next attempt applies', async () => {
    const { layer, engine } = bench;
    const message = newMessage();
    const mine = new TypeError('broken');
    const failing = once(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      throw mine;
    });
    expect(await failure(failing)).toBe(mine);
    expect(await engine.accounts()).toEqual([]);
    expect(await bench.isConsumed(message)).toBe(false);
    const work = (tx: Tx) => layer.insert(tx, 1);
    expect(await once(layer.database, message, work)).toBe('applied');
  });

  test('a handler that fails three times and then succeeds is applied once', async () => {
    const { layer, engine } = bench;
    const message = newMessage();
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      const failing = once(layer.database, message, async (tx) => {
        await layer.insert(tx, attempt);
        throw new Error(`attempt ${attempt}`);
      });
      await expect(failing).rejects.toThrow(`attempt ${attempt}`);
    }
    await once(layer.database, message, (tx) => layer.insert(tx, 4));
    expect(await engine.accounts()).toEqual([4]);
  });

  test('a signal that aborts before COMMIT leaves nothing behind, and its reason is thrown', async () => {
    const { layer, engine } = bench;
    const controller = new AbortController();
    const message = newMessage({ signal: controller.signal });
    const late = once(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      controller.abort(new Error('out of time'));
    });
    await expect(late).rejects.toThrow('out of time');
    expect(await engine.accounts()).toEqual([]);
    let isCalled = false;
    const again = once(layer.database, message, async () => {
      isCalled = true;
    });
    await expect(again).rejects.toThrow('out of time');
    expect(isCalled).toBe(false);
    expect(await bench.isConsumed(message)).toBe(false);
  });

  test('work that hangs is given up when its signal aborts, and what it sends then is refused', async () => {
    const { layer, engine } = bench;
    const controller = new AbortController();
    const message = newMessage({ signal: controller.signal });
    const begun = deferred();
    const wake = deferred();
    let refused: Promise<unknown> = Promise.resolve();
    const hanging = once(layer.database, message, async (tx) => {
      await layer.insert(tx, 1);
      begun.resolve();
      await wake.promise;
      refused = failure((async () => layer.insert(tx, 2))());
      await refused;
    });
    await begun.promise;
    controller.abort(new Error('out of time'));
    await expect(hanging).rejects.toThrow('out of time');
    wake.resolve();
    await new Promise((resolve) => setImmediate(resolve));
    expect(await refused).toHaveProperty('message');
    const work = (tx: Tx) => layer.insert(tx, 3);
    const { id, group } = message;
    expect(await once(layer.database, { id, group }, work)).toBe('applied');
    expect(await engine.accounts()).toEqual([3]);
  });

  test('failures of every kind leave the connections as good as new', async () => {
    const { layer, engine } = bench;
    const kinds: ((tx: Tx) => Promise<unknown>)[] = [
      async () => {
        throw new Error('mine');
      },
      (tx) => layer.run(tx, 'not sql'),
      (tx) => layer.run(tx, 'commit'),
      (tx) => layer.run(tx, 'rollback'),
    ];
    for (let round = 0; round < 5; round += 1) {
      const calls = kinds.map((kind) => once(layer.database, newMessage(), kind));
      const settled = await Promise.allSettled(calls);
      expect(settled.map(({ status }) => status)).toEqual(kinds.map(() => 'rejected'));
    }
    await Promise.all(
      [1, 2, 3].map((id) => once(layer.database, newMessage(), (tx) => layer.insert(tx, id))),
    );
    expect(await engine.accounts()).toEqual([1, 2, 3]);
  });

  test('a message of the front is a duplicate without a question, and only after COMMIT', async () => {
    const { layer, engine } = bench;
    const front = createDuplicateFront();
    const message = newMessage();
    const failing = once(
      layer.database,
      message,
      async () => {
        throw new Error('mine');
      },
      { front },
    );
    await expect(failing).rejects.toThrow('mine');
    const work = (tx: Tx) => layer.insert(tx, 1);
    expect(await once(layer.database, message, work, { front })).toBe('applied');
    // Behind the front's back: whoever asks the table now would apply it.
    await engine.query('delete from escrow_consumed');
    expect(await once(layer.database, message, work, { front })).toBe('duplicate');
    expect(await engine.accounts()).toEqual([1]);
  });

  test('what the front knows of one database says nothing about another', async () => {
    const { layer, other } = bench;
    if (layer === other) return;
    const front = createDuplicateFront();
    const message = newMessage();
    await once(layer.database, message, (tx) => layer.insert(tx, 1), { front });
    await bench.engine.query('delete from escrow_consumed');
    const onOther = once(other.database, message, (tx) => other.insert(tx, 2), { front });
    expect(await onOther).toBe('applied');
  });

  test('purging deletes what is older than that and nothing else (F72)', async () => {
    const { layer, engine } = bench;
    const message = newMessage();
    await once(layer.database, message, (tx) => layer.insert(tx, 1));
    const dayAgo = Date.now() - 24 * 3_600_000;
    const idAt = (time: number, n: number) => `${uuidAt(time)}-${n}`;
    const row = (group: string, id: string, time: number) => `('${group}', '${id}', ${time})`;
    const values = Array.from({ length: 2_500 }, (_, n) =>
      row(n % 2 === 0 ? 'a' : 'b', idAt(dayAgo, n), dayAgo),
    );
    // Prepared a day ago and delayed until now, in the middle of the others.
    values.push(row('a', idAt(dayAgo, 1_000_000), Date.now()));
    await engine.query(`insert into escrow_consumed values ${values.join(', ')}`);
    expect(await purgeConsumed(layer.database)).toBe(0);
    expect(await purgeConsumed(layer.database, 3_600_000)).toBe(2_500);
    expect(await purgeConsumed(layer.database, 3_600_000)).toBe(0);
    expect(await bench.isConsumed(message)).toBe(true);
    const left = await engine.query(
      "select message_id from escrow_consumed where consumer_group = 'a'",
    );
    expect(left).toHaveLength(1);
    await expect(purgeConsumed(layer.database, Number.NaN)).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
    });
  });
}

/** A UUIDv7 of that time. */
function uuidAt(time: number): string {
  const hex = time.toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}${newTransactionId().slice(13)}`;
}

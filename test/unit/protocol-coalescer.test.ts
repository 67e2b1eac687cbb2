import { type Coalescer, type CoalescerOptions, createCoalescer } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { deferred, whatIsReady } from '../support/ready.js';

interface Item {
  key: string;
  bytes: number;
  number: number;
}

const item = (number: number, changes: Partial<Item> = {}): Item => ({
  key: String(number),
  bytes: 1,
  number,
  ...changes,
});

const refuse = () => new Error('the queue is full');

/** A coalescer whose flushes wait for the test, each with the batch it was given. */
function held(options: Partial<CoalescerOptions<Item, string>> = {}) {
  const flushes: { numbers: number[]; end: ReturnType<typeof deferred<string[]>> }[] = [];
  const coalescer = createCoalescer<Item, string>({
    flush(items) {
      const end = deferred<string[]>();
      flushes.push({ numbers: items.map(({ number }) => number), end });
      return end.promise;
    },
    batchMax: 100,
    waitingMax: 1_000,
    refuse,
    ...options,
  });
  return { coalescer, flushes };
}

/** A coalescer that ends every flush at once, and the batches it made. */
function recorded(options: Partial<CoalescerOptions<Item, string>> = {}) {
  const batches: Item[][] = [];
  const coalescer = createCoalescer<Item, string>({
    async flush(items) {
      batches.push(items);
      return items.map(({ number }) => `result of ${number}`);
    },
    batchMax: 100,
    waitingMax: 1_000,
    refuse,
    ...options,
  });
  return { coalescer, batches };
}

const callAll = (coalescer: Coalescer<Item, string>, items: readonly Item[]) =>
  Promise.all(items.map((one) => coalescer.call(one)));

const numbersOf = (batches: readonly Item[][]) =>
  batches.map((batch) => batch.map(({ number }) => number));

describe('batches from concurrency alone', () => {
  test('a lone call is flushed by itself and waits for no other', async () => {
    const { coalescer, batches } = recorded();
    expect(await coalescer.call(item(1))).toBe('result of 1');
    expect(numbersOf(batches)).toEqual([[1]]);
  });

  test('calls of one turn of the event loop share a flush, however many promises they came through', async () => {
    const { coalescer, batches } = recorded();
    const later = (async () => {
      for (let step = 0; step < 20; step += 1) await undefined;
      return coalescer.call(item(3));
    })();
    await Promise.all([callAll(coalescer, [item(1), item(2)]), later]);
    expect(numbersOf(batches)).toEqual([[1, 2, 3]]);
  });

  test('one flush is in flight at a time, and what arrives meanwhile is the next batch', async () => {
    const { coalescer, flushes } = held();
    const first = coalescer.call(item(1));
    await whatIsReady();
    const others = callAll(coalescer, [item(2), item(3)]);
    await whatIsReady();
    expect(flushes.map(({ numbers }) => numbers)).toEqual([[1]]);
    expect(coalescer.size).toBe(3);

    flushes[0]!.end.resolve(['a']);
    expect(await first).toBe('a');
    await whatIsReady();
    expect(flushes.map(({ numbers }) => numbers)).toEqual([[1], [2, 3]]);
    flushes[1]!.end.resolve(['b', 'c']);
    expect(await others).toEqual(['b', 'c']);
    expect(coalescer.size).toBe(0);
  });
});

describe('bounds of the queue', () => {
  test('bytes that wait are bounded, and what waits alone may be of any size', async () => {
    const { coalescer, flushes } = held({ waitingBytesMax: 10, sizeOf: ({ bytes }) => bytes });
    const flying = coalescer.call(item(1, { bytes: 50 }));
    await whatIsReady();
    const large = coalescer.call(item(2, { bytes: 50 }));
    await expect(coalescer.call(item(3))).rejects.toThrow('the queue is full');
    flushes[0]!.end.resolve(['a']);
    await flying;
    await whatIsReady();
    const small = callAll(coalescer, [item(4, { bytes: 4 }), item(5, { bytes: 6 })]);
    await expect(coalescer.call(item(6))).rejects.toThrow('the queue is full');
    flushes[1]!.end.resolve(['b']);
    expect(await large).toBe('b');
    await whatIsReady();
    flushes[2]!.end.resolve(['c', 'd']);
    expect(await small).toEqual(['c', 'd']);
  });
});

describe('bounds of a batch', () => {
  test('a batch has at most batchMax items', async () => {
    const { coalescer, batches } = recorded({ batchMax: 2 });
    await callAll(
      coalescer,
      [1, 2, 3, 4, 5].map((number) => item(number)),
    );
    expect(numbersOf(batches)).toEqual([[1, 2], [3, 4], [5]]);
  });

  test('a batch may fill batchBytesMax to the last byte and not go over it', async () => {
    const { coalescer, batches } = recorded({ batchBytesMax: 10, sizeOf: ({ bytes }) => bytes });
    await callAll(coalescer, [
      item(1, { bytes: 4 }),
      item(2, { bytes: 6 }),
      item(3, { bytes: 4 }),
      item(4, { bytes: 7 }),
    ]);
    expect(numbersOf(batches)).toEqual([[1, 2], [3], [4]]);
  });

  test('an item larger than batchBytesMax goes alone', async () => {
    const { coalescer, batches } = recorded({ batchBytesMax: 10, sizeOf: ({ bytes }) => bytes });
    await callAll(coalescer, [item(1), item(2, { bytes: 99 }), item(3)]);
    expect(numbersOf(batches)).toEqual([[1], [2], [3]]);
  });

  test('items of one key go into successive batches in order, and let others pass', async () => {
    const { coalescer, batches } = recorded({ keyOf: ({ key }) => key });
    const results = await callAll(coalescer, [
      item(1, { key: 'a' }),
      item(2, { key: 'a' }),
      item(3, { key: 'b' }),
      item(4, { key: 'a' }),
    ]);
    expect(numbersOf(batches)).toEqual([[1, 3], [2], [4]]);
    expect(results).toEqual([1, 2, 3, 4].map((number) => `result of ${number}`));
  });

  test('what is flushed makes room in the queue, and one call too many is refused', async () => {
    const { coalescer, flushes } = held({ waitingMax: 2 });
    const first = coalescer.call(item(1));
    await whatIsReady();
    const waiting = callAll(coalescer, [item(2), item(3)]);
    await expect(coalescer.call(item(4))).rejects.toThrow('the queue is full');
    expect(coalescer.size).toBe(3);

    flushes[0]!.end.resolve(['a']);
    await first;
    await whatIsReady();
    const again = coalescer.call(item(5));
    flushes[1]!.end.resolve(['b', 'c']);
    expect(await waiting).toEqual(['b', 'c']);
    await whatIsReady();
    flushes[2]!.end.resolve(['d']);
    expect(await again).toBe('d');
  });
});

describe('failures', () => {
  test('a flush that fails rejects its own calls only', async () => {
    const { coalescer, flushes } = held({ batchMax: 2 });
    const calls = [1, 2, 3].map((number) => coalescer.call(item(number)));
    const settled = Promise.allSettled(calls);
    await whatIsReady();
    const cause = new Error('the store is away');
    flushes[0]!.end.reject(cause);
    await whatIsReady();
    flushes[1]!.end.resolve(['c']);
    expect(await settled).toEqual([
      { status: 'rejected', reason: cause },
      { status: 'rejected', reason: cause },
      { status: 'fulfilled', value: 'c' },
    ]);
  });

  test('a flush that throws before its first await rejects its calls as well', async () => {
    const { coalescer } = recorded({
      flush: () => {
        throw new Error('not even begun');
      },
    });
    await expect(coalescer.call(item(1))).rejects.toThrow('not even begun');
    expect(coalescer.size).toBe(0);
  });

  test('a flush that returns too few results rejects its calls instead of mixing them up', async () => {
    const { coalescer } = recorded({ flush: async () => ['only one'] });
    const settled = await Promise.allSettled([coalescer.call(item(1)), coalescer.call(item(2))]);
    expect(settled.map(({ status }) => status)).toEqual(['rejected', 'rejected']);
    await expect(callAll(coalescer, [item(1), item(2)])).rejects.toThrow('returned 1 results');
  });
});

describe('idle', () => {
  test('it resolves at once when nothing was called', async () => {
    await recorded().coalescer.idle();
  });

  test('it resolves only after the last batch, whoever asks and whatever failed', async () => {
    const { coalescer, flushes } = held({ batchMax: 1 });
    const calls = Promise.allSettled([coalescer.call(item(1)), coalescer.call(item(2))]);
    let idle = 0;
    const both = Promise.all([1, 2].map(() => coalescer.idle().then(() => (idle += 1))));
    await whatIsReady();
    flushes[0]!.end.reject(new Error('no'));
    await whatIsReady();
    expect(idle).toBe(0);
    flushes[1]!.end.resolve(['b']);
    await both;
    await calls;
    expect(idle).toBe(2);
  });
});

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));
const anItem = fc.record({ key: fc.constantFrom('a', 'b', 'c', 'd'), bytes: fc.nat(12) });

test('whatever arrives in whatever order: every bound holds, no call is lost or mixed up', async () => {
  const limits = fc.record({
    batchMax: fc.integer({ min: 1, max: 5 }),
    bytesMax: fc.nat(20),
    /** How many turns of the event loop each flush takes, in turn. */
    turns: fc.array(fc.nat(3), { minLength: 1 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(fc.array(anItem)), limits, async (waves, given) => {
      const { batchMax, bytesMax, turns } = given;
      const batches: Item[][] = [];
      let flying = 0;
      const coalescer = createCoalescer<Item, string>({
        flush: async (batch) => {
          flying += 1;
          expect(flying).toBe(1);
          batches.push(batch);
          const rest = turns[batches.length % turns.length] ?? 0;
          for (let turn = 0; turn < rest; turn += 1) await nextTurn();
          flying -= 1;
          return batch.map(({ number }) => `result of ${number}`);
        },
        batchMax,
        batchBytesMax: bytesMax,
        sizeOf: ({ bytes }) => bytes,
        keyOf: ({ key }) => key,
        waitingMax: 1_000,
        refuse,
      });
      let number = 0;
      const calls: Promise<string>[] = [];
      for (const wave of waves) {
        for (const one of wave) calls.push(coalescer.call({ ...one, number: number++ }));
        await nextTurn();
      }
      expect(await Promise.all(calls)).toEqual(calls.map((_, index) => `result of ${index}`));
      await coalescer.idle();
      expect(coalescer.size).toBe(0);
      expect(batches.flat().length).toBe(calls.length);
      for (const batch of batches) {
        expect(batch.length).toBeGreaterThan(0);
        expect(batch.length).toBeLessThanOrEqual(batchMax);
        expect(new Set(batch.map(({ key }) => key)).size).toBe(batch.length);
        const bytes = batch.reduce((sum, one) => sum + one.bytes, 0);
        expect(batch.length === 1 || bytes <= bytesMax).toBe(true);
      }
      for (const key of ['a', 'b', 'c', 'd']) {
        const order = batches.flat().filter((one) => one.key === key);
        expect(order.map((one) => one.number)).toEqual(
          order.map((one) => one.number).sort((a, b) => a - b),
        );
      }
    }),
  );
});

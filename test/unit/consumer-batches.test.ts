import { setImmediate as nextTurn } from 'node:timers/promises';
import { beforeEach, expect, jest, test } from '@jest/globals';
import { Batches } from '../../consumer-sdk/src/batch/batches.js';
import { parseBatchOptions } from '../../consumer-sdk/src/batch/options.js';

interface Item {
  name: string;
  isAlone: boolean;
}

let handled: string[][];
let finish: () => void;

beforeEach(() => {
  handled = [];
});

function batchesOf(batchMax: number, waitMs = 0): Batches<Item> {
  return new Batches({
    batchMax,
    waitMs,
    handle(batch) {
      handled.push(batch.map(({ name }) => name));
      return new Promise((resolve) => {
        finish = resolve;
      });
    },
  });
}

/** Its letters, each as an item; a capital one is to be alone. */
function add(batches: Batches<Item>, names: string): Item[] {
  const items = [...names].map((name) => ({ name, isAlone: name !== name.toLowerCase() }));
  for (const item of items) batches.add(item);
  return items;
}

async function finished(): Promise<void> {
  finish();
  await nextTurn();
  await nextTurn();
}

test('what arrives in one turn is one batch, and what arrives while it is handled the next', async () => {
  const batches = batchesOf(10);
  add(batches, 'ab');
  expect(handled).toEqual([]);
  await nextTurn();
  add(batches, 'c');
  await nextTurn();
  add(batches, 'd');
  await nextTurn();
  expect(handled).toEqual([['a', 'b']]);
  await finished();
  expect(handled).toEqual([
    ['a', 'b'],
    ['c', 'd'],
  ]);
});

test('a batch holds no more than its limit', async () => {
  const batches = batchesOf(2);
  add(batches, 'abcde');
  await nextTurn();
  await finished();
  await finished();
  expect(handled).toEqual([['a', 'b'], ['c', 'd'], ['e']]);
});

test('what is to be alone gets a batch of its own, and holds up nothing but its turn', async () => {
  const batches = batchesOf(10);
  add(batches, 'aXbYc');
  await nextTurn();
  await finished();
  await finished();
  expect(handled).toEqual([['a', 'b', 'c'], ['X'], ['Y']]);
});

test('with a wait a batch begins when its first has waited, or when it is full', async () => {
  jest.useFakeTimers({ doNotFake: ['setImmediate', 'queueMicrotask', 'nextTick'] });
  try {
    const batches = batchesOf(3, 100);
    add(batches, 'a');
    jest.advanceTimersByTime(99);
    add(batches, 'b');
    await nextTurn();
    expect(handled).toEqual([]);
    jest.advanceTimersByTime(1);
    await nextTurn();
    expect(handled).toEqual([['a', 'b']]);
    // Time that passes while another is handled counts.
    add(batches, 'c');
    jest.advanceTimersByTime(60);
    await finished();
    jest.advanceTimersByTime(40);
    await nextTurn();
    expect(handled.at(-1)).toEqual(['c']);
    await finished();
    add(batches, 'def');
    await nextTurn();
    expect(handled.at(-1)).toEqual(['d', 'e', 'f']);
  } finally {
    jest.useRealTimers();
  }
});

test('what was taken back is in no batch, and after the end there are none', async () => {
  const batches = batchesOf(10);
  const [a] = add(batches, 'ab');
  batches.remove(a!);
  await nextTurn();
  expect(handled).toEqual([['b']]);
  add(batches, 'cd');
  expect(batches.end().map(({ name }) => name)).toEqual(['c', 'd']);
  add(batches, 'e');
  await finished();
  expect(handled).toHaveLength(1);
});

test('batch options have defaults, and those that do not fit together are refused', () => {
  const names = { topic: 't', group: 'g' };
  expect(parseBatchOptions(names)).toMatchObject({
    batchMax: 100,
    batchWaitMs: 0,
    subscribe: { concurrency: 200, handlerTimeoutMs: 60_000 },
  });
  expect(parseBatchOptions({ ...names, batchMax: 10 }).subscribe.concurrency).toBe(20);
  const refusals: [object, RegExp][] = [
    [{ batchMax: 1001 }, /subscribeBatch: batchMax must be a whole number from 1 to 1000/],
    [{ batchWaitMs: -1 }, /batchWaitMs must be/],
    [{ batchMax: 50, concurrency: 49 }, /concurrency must be at least batchMax \(50\)/],
    [{ batchMax: 10, concurrency: 1000 }, /a message may wait for 101 batches, 6060000 ms in all/],
    [{ handlerTimeoutMs: 600_000 }, /may wait for 3 batches/],
    [{ ordered: {} }, /subscribeBatch does not know ordered/],
    [{ batch: 5 }, /subscribeBatch does not know batch/],
  ];
  for (const [options, message] of refusals) {
    expect(() => parseBatchOptions({ ...names, ...options })).toThrow(message);
  }
});

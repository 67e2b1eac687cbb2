import type { BusinessKeyAnswer } from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { createSettlementWaits } from '../../broker/src/engine/settlement-waits.js';
import { currentId, recordingObserver } from '../support/engine-fakes.js';
import { whatIsReady } from '../support/ready.js';

type Unsettled = BusinessKeyAnswer['transactions'][number];

const TICK_MS = 25;
const WAITS_MAX = 2_000;
const LONG_MS = 30_000;

beforeEach(() => {
  jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask', 'performance'] });
});
afterEach(() => {
  // Nothing goes on asking the store when nobody waits any more.
  jest.advanceTimersByTime(TICK_MS);
  jest.useRealTimers();
});

/** Lets this much time pass, and what becomes ready by it run. */
async function pass(ms: number): Promise<void> {
  jest.advanceTimersByTime(ms);
  await whatIsReady();
}

const unsettled = (changes: Partial<Unsettled> = {}): Unsettled => ({
  id: currentId(),
  producerGroup: 'accounts',
  state: 'committed',
  waitingFor: ['phone-index'],
  failed: [],
  ...changes,
});

/** Waits on a store of which the test says what is unsettled. */
function waiting(initially: Record<string, Unsettled[]> = {}) {
  const store = { on: initially, failure: undefined as Error | undefined };
  const asked: { keys: string[]; group: string | undefined }[] = [];
  const observer = recordingObserver();
  const waits = createSettlementWaits({
    store: {
      unsettled: async () => new Map(),
      async unsettledOn(keys, group) {
        asked.push({ keys: [...keys], group });
        if (store.failure !== undefined) throw store.failure;
        return new Map(keys.map((key) => [key, store.on[key] ?? []]));
      },
    },
    observer,
  });
  const answers: BusinessKeyAnswer[] = [];
  function wait(
    businessKey: string,
    options: { waitMs?: number; producerGroup?: string; signal?: AbortSignal } = {},
  ): Promise<BusinessKeyAnswer> {
    const call = waits.forBusinessKey({
      businessKey,
      waitMs: options.waitMs ?? LONG_MS,
      producerGroup: options.producerGroup,
      signal: options.signal ?? new AbortController().signal,
    });
    void call.then(
      (answer) => answers.push(answer),
      () => undefined,
    );
    return call;
  }
  return { store, asked, observer, answers, wait };
}

describe('what is answered at once', () => {
  test('U05: what was closed, or purged without having settled, is not settled and not waited for', async () => {
    const closed = { at: 1, by: 'operator ann', reason: 'x' };
    for (const changes of [{ closed }, { closed, purged: true }, { purged: true }]) {
      const left = unsettled({ state: 'forwarded', waitingFor: [], ...changes });
      const { wait } = waiting({ 'phone:1': [left] });
      expect(await wait('phone:1')).toEqual({
        businessKey: 'phone:1',
        settled: false,
        transactions: [left],
      });
    }
  });

  test('a key with nothing unsettled is settled', async () => {
    const { wait } = waiting();
    expect(await wait('phone:1')).toEqual({
      businessKey: 'phone:1',
      settled: true,
      transactions: [],
    });
  });

  test('without waitMs it is what is known now', async () => {
    const open = unsettled();
    const { wait, asked } = waiting({ 'phone:1': [open] });
    const answer = await wait('phone:1', { waitMs: 0 });
    expect(answer).toEqual({ businessKey: 'phone:1', settled: false, transactions: [open] });
    expect(asked).toHaveLength(1);
    expect(jest.getTimerCount()).toBe(0);
  });

  test.each([
    ['parked', unsettled({ state: 'parked' })],
    [
      'waiting only for groups that gave up',
      unsettled({ waitingFor: [], failed: ['phone-index'] }),
    ],
  ])('what is %s does not move any more', async (_, stuck) => {
    const { wait } = waiting({ 'phone:1': [stuck] });
    expect(await wait('phone:1')).toMatchObject({ settled: false, transactions: [stuck] });
    expect(jest.getTimerCount()).toBe(0);
  });

  test('a caller that is gone already waits for nothing', async () => {
    const { wait } = waiting({ 'phone:1': [unsettled()] });
    await wait('phone:1', { signal: AbortSignal.abort() });
    expect(jest.getTimerCount()).toBe(0);
  });

  test('a store that is away is the caller’s to hear of', async () => {
    const { wait, store } = waiting();
    store.failure = new Error('away');
    await expect(wait('phone:1')).rejects.toThrow('away');
  });
});

describe('waiting', () => {
  test('it ends when the key has settled', async () => {
    const { wait, store, answers } = waiting({ 'phone:1': [unsettled()] });
    const call = wait('phone:1');
    await whatIsReady();
    await pass(TICK_MS);
    expect(answers).toEqual([]);
    store.on = {};
    await pass(TICK_MS);
    expect(await call).toMatchObject({ settled: true, transactions: [] });
    await pass(TICK_MS);
    expect(jest.getTimerCount()).toBe(0);
  });

  test('a wait after all others have ended is looked after like the first', async () => {
    const { wait, store } = waiting({ 'phone:1': [unsettled()] });
    for (let round = 0; round < 2; round += 1) {
      store.on = { 'phone:1': [unsettled()] };
      const call = wait('phone:1');
      await whatIsReady();
      store.on = {};
      await pass(TICK_MS);
      expect(await call).toMatchObject({ settled: true });
      await pass(TICK_MS);
    }
  });

  test('it goes on while one group gave up and another may still consume', async () => {
    const half = unsettled({ failed: ['email-index'] });
    const { wait, store, answers } = waiting({ 'phone:1': [half] });
    const call = wait('phone:1');
    await whatIsReady();
    await pass(TICK_MS);
    expect(answers).toEqual([]);
    const stuck = { ...half, waitingFor: [] };
    store.on = { 'phone:1': [stuck] };
    await pass(TICK_MS);
    expect(await call).toMatchObject({ settled: false, transactions: [stuck] });
  });

  test('it goes on for what no group is expected to consume, until that is forwarded', async () => {
    const { wait, store, answers } = waiting({ 'phone:1': [unsettled({ waitingFor: [] })] });
    const call = wait('phone:1');
    await whatIsReady();
    await pass(TICK_MS);
    expect(answers).toEqual([]);
    store.on = {};
    await pass(TICK_MS);
    expect(await call).toMatchObject({ settled: true });
  });

  test('it goes on while any of several transactions still moves', async () => {
    const parked = unsettled({ state: 'parked' });
    const { wait, store, answers } = waiting({ 'phone:1': [parked, unsettled()] });
    const call = wait('phone:1');
    await whatIsReady();
    await pass(TICK_MS);
    expect(answers).toEqual([]);
    store.on = { 'phone:1': [parked] };
    await pass(TICK_MS);
    expect(await call).toMatchObject({ settled: false, transactions: [parked] });
  });

  test('it ends at its limit with what is known then', async () => {
    const { wait, store, answers } = waiting({ 'phone:1': [unsettled()] });
    const call = wait('phone:1', { waitMs: 100 });
    await whatIsReady();
    const later = unsettled({ state: 'forwarded' });
    store.on = { 'phone:1': [later] };
    for (let ms = 0; ms < 75; ms += TICK_MS) await pass(TICK_MS);
    await pass(24);
    expect(answers).toEqual([]);
    await pass(1);
    expect(await call).toMatchObject({ settled: false, transactions: [later] });
  });

  test('it ends when the caller goes, and nobody is asked about its key any more', async () => {
    const caller = new AbortController();
    const { wait, asked } = waiting({ 'phone:1': [unsettled()] });
    const call = wait('phone:1', { signal: caller.signal });
    await whatIsReady();
    caller.abort();
    expect(await call).toMatchObject({ settled: false });
    await pass(TICK_MS);
    await pass(TICK_MS);
    expect(asked).toHaveLength(1);
    expect(jest.getTimerCount()).toBe(0);
  });

  test('a failed look is reported, and the wait goes on', async () => {
    const { wait, store, observer } = waiting({ 'phone:1': [unsettled()] });
    const call = wait('phone:1');
    await whatIsReady();
    store.failure = new Error('away');
    await pass(TICK_MS);
    expect(observer.failures).toEqual([['look for what has settled', store.failure]]);
    store.failure = undefined;
    store.on = {};
    await pass(TICK_MS);
    expect(await call).toMatchObject({ settled: true });
  });
});

describe('many waits', () => {
  test('all keys of a group are asked about in one query per tick, each once', async () => {
    const open = { a: [unsettled()], b: [unsettled()] };
    const { wait, asked, store } = waiting(open);
    const calls = [
      wait('a'),
      wait('a'),
      wait('b'),
      wait('b', { producerGroup: 'accounts' }),
      wait('a', { producerGroup: 'billing' }),
    ];
    await whatIsReady();
    asked.length = 0;
    store.on = {};
    await pass(TICK_MS);
    expect(asked).toEqual([
      { keys: ['a', 'b'], group: undefined },
      { keys: ['b'], group: 'accounts' },
      { keys: ['a'], group: 'billing' },
    ]);
    await Promise.all(calls);
  });

  test('a query names at most 500 keys', async () => {
    const keys = Array.from({ length: 1_001 }, (_, number) => `key:${number}`);
    const on = Object.fromEntries(keys.map((key) => [key, [unsettled()]]));
    const { wait, asked, store } = waiting(on);
    const calls = keys.map((key) => wait(key));
    await whatIsReady();
    asked.length = 0;
    store.on = {};
    await pass(TICK_MS);
    expect(asked.map((query) => query.keys.length)).toEqual([500, 500, 1]);
    await Promise.all(calls);
  });

  test('one wait too many is refused, and one that ends makes room', async () => {
    const callers = Array.from({ length: WAITS_MAX + 1 }, () => new AbortController());
    const { wait } = waiting({ a: [unsettled()] });
    const [late, first] = callers;
    const calls = callers.slice(1).map(({ signal }) => wait('a', { signal }));
    await whatIsReady();
    await expect(wait('a')).rejects.toMatchObject({ code: 'BROKER_BUSY' });
    first!.abort();
    await calls[0];
    const again = wait('a', { signal: late!.signal });
    await whatIsReady();
    for (const caller of callers) caller.abort();
    await Promise.all([...calls, again]);
  });
});

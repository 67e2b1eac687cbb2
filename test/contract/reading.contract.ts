import type { SearchQuery } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { Store } from '../../broker/src/domain/ports.js';
import { byProducer } from '../../broker/src/domain/transaction.js';
import {
  decide,
  forwardedTransaction,
  message,
  messages,
  newId,
  newTransaction,
  type OpenStore,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';
import { STATE_CASES } from './state-cases.js';

async function found(store: Store, query: Partial<SearchQuery>): Promise<string[]> {
  const { transactions } = await store.search({ limit: 200, ...query });
  return transactions.map(({ id }) => id).sort();
}

export function readingContract(opened: () => OpenStore): void {
  describe('search', () => {
    test('each filter finds its own, and together they find what all of them allow', async () => {
      const { store } = opened();
      const plain = await prepare(store);
      const orders = await prepare(store, { producerGroup: 'orders', businessKeys: ['k1'] });
      const done = await forwardedTransaction(store, { businessKeys: ['k1', 'k2'] });
      const topics = [message({ topic: 'a.b' }), message({ topic: 'stock' })];
      const stock = await prepare(store, { messages: topics });
      const search = (query: Partial<SearchQuery>) => found(store, query);

      expect(await search({})).toEqual([plain, orders, done, stock].sort());
      expect(await search({ state: 'prepared' })).toEqual([plain, orders, stock].sort());
      expect(await search({ state: 'forwarded' })).toEqual([done]);
      expect(await search({ state: 'parked' })).toEqual([]);
      expect(await search({ producerGroup: 'orders' })).toEqual([orders]);
      expect(await search({ producerGroup: 'Orders' })).toEqual([]);
      expect(await search({ topic: 'user' })).toEqual([plain, orders, done].sort());
      expect(await search({ topic: 'stock' })).toEqual([stock]);
      expect(await search({ businessKey: 'k1' })).toEqual([orders, done].sort());
      expect(await search({ businessKey: 'K1' })).toEqual([]);
      expect(await search({ businessKey: 'k1', producerGroup: 'accounts' })).toEqual([done]);
      expect(
        await search({
          businessKey: 'k1',
          producerGroup: 'orders',
          topic: 'user',
          state: 'prepared',
          limit: 1,
        }),
      ).toEqual([orders]);
    });

    test('a topic is found by its whole name only', async () => {
      const { store } = opened();
      await prepare(store, { messages: [message({ topic: 'a_b' }), message({ topic: 'User.x' })] });
      for (const topic of [
        'a',
        'a_',
        'axb',
        'a%',
        '%',
        '_',
        'user.x',
        'User',
        'a_b,User.x',
        'é',
        "'",
      ]) {
        expect([topic, await found(store, { topic })]).toEqual([topic, []]);
      }
      expect(await found(store, { topic: 'a_b' })).toHaveLength(1);
      expect(await found(store, { topic: 'User.x' })).toHaveLength(1);
    });

    test('pages follow each other newest first, without gap or repeat', async () => {
      const { store } = opened();
      const at = Date.now();
      const ids = Array.from({ length: 23 }, (_, number) => newId(at + Math.floor(number / 3)));
      await store.insert(
        ids.map((id, number) =>
          newTransaction({ id, producerGroup: number % 2 === 0 ? 'even' : 'odd' }),
        ),
      );
      const pages = async (query: Partial<SearchQuery>) => {
        const sizes: number[] = [];
        const seen: string[] = [];
        let cursor: string | undefined;
        do {
          const page = await store.search({
            limit: 5,
            ...query,
            ...(cursor === undefined ? {} : { cursor }),
          });
          sizes.push(page.transactions.length);
          seen.push(...page.transactions.map(({ id }) => id));
          cursor = page.cursor;
        } while (cursor !== undefined);
        return { sizes, seen };
      };
      const newestFirst = [...ids].sort().reverse();
      expect(await pages({})).toEqual({ sizes: [5, 5, 5, 5, 3], seen: newestFirst });
      const even = new Set(ids.filter((_, number) => number % 2 === 0));
      expect(await pages({ producerGroup: 'even', limit: 4 })).toEqual({
        sizes: [4, 4, 4],
        seen: newestFirst.filter((id) => even.has(id)),
      });
      // Of a rare state rows are found in the order in which they are due, which is another one.
      await store.decide(
        ids.toReversed().map((id) => ({ id, decision: 'commit', decidedBy: byProducer })),
        0,
      );
      await store.insert(Array.from({ length: 5 }, () => newTransaction()));
      expect(await pages({ state: 'committed' })).toEqual({
        sizes: [5, 5, 5, 5, 3],
        seen: newestFirst,
      });
      expect(await pages({ state: 'committed', producerGroup: 'even', limit: 4 })).toEqual({
        sizes: [4, 4, 4],
        seen: newestFirst.filter((id) => even.has(id)),
      });
    });

    test('a result says what a list shows', async () => {
      const { store } = opened();
      const prepared = await prepare(store, { preparedAt: 17 });
      const parked = (await STATE_CASES['parked: undeliverable'](store)).id;
      const { state } = await rowOf(store, prepared);
      const { decision } = await rowOf(store, parked);
      const { transactions } = await store.search({ limit: 10 });
      expect(transactions.find(({ id }) => id === prepared)).toEqual({
        id: prepared,
        producerGroup: 'accounts',
        state: 'prepared',
        preparedAt: 17,
        dueAt: state.state === 'prepared' ? state.dueAt : undefined,
        settled: false,
      });
      expect(transactions.find(({ id }) => id === parked)).toMatchObject({
        state: 'parked',
        parkedReason: 'undeliverable',
        settled: false,
        decision,
      });
    });
  });

  describe('the view of one transaction', () => {
    test('an id without a row has none', async () => {
      expect(await opened().store.view(newId())).toBeUndefined();
    });

    test('it shows everything but the bodies', async () => {
      const { store } = opened();
      const id = await prepare(store, {
        preparedAt: 17,
        businessKeys: ['k1'],
        expects: ['index'],
        checkContext: 'shard-3',
        messages: [
          message({ data: { secret: 'x' } }),
          message({ data: undefined, dataBase64: 'AAECAw==', contentType: 'image/png' }),
          message({ data: undefined, dataBase64: '', routingKey: '' }),
        ],
      });
      const { state } = await rowOf(store, id);
      const shown = { topic: 'user', state: 'half' };
      expect(await store.view(id)).toEqual({
        id,
        producerGroup: 'accounts',
        state: 'prepared',
        preparedAt: 17,
        dueAt: state.state === 'prepared' ? state.dueAt : undefined,
        settled: false,
        businessKeys: ['k1'],
        expects: ['index'],
        checkContext: 'shard-3',
        checks: { unknown: 0, unanswered: 0 },
        forwarding: { failedAttempts: 0 },
        messages: [
          { ...shown, routingKey: 'registered', contentType: 'application/json', bytes: 14 },
          { ...shown, routingKey: 'registered', contentType: 'image/png', bytes: 4 },
          { ...shown, routingKey: '', contentType: 'application/octet-stream', bytes: 0 },
        ].map((each, number) => ({ messageId: `${id}-${number}`, ...each })),
        groups: [{ consumerGroup: 'index', state: 'waiting', attempts: 0 }],
        receipts: [],
        compensations: [],
        history: [],
      });
    });

    test('it shows what became of each message', async () => {
      const { store } = opened();
      const expected = {
        prepared: ['half', 'half'],
        'parked: unresolved': ['half', 'half'],
        committed: ['pending', 'pending'],
        'committed: partly confirmed': ['forwarded', 'pending'],
        'parked: undeliverable': ['forwarded', 'pending'],
        forwarded: ['forwarded', 'forwarded'],
        rolledBack: ['rolledBack', 'rolledBack'],
      };
      const shown = await Promise.all(
        Object.entries(STATE_CASES).map(async ([name, place]) => {
          const view = await store.view((await place(store)).id);
          return [name, view?.messages.map(({ state }) => state)];
        }),
      );
      expect(Object.fromEntries(shown)).toEqual(expected);
    });

    test('history comes in the order it happened, the newest 300 events of it', async () => {
      const { store } = opened();
      const [id, other] = [await prepare(store), await prepare(store)];
      await store.appendHistory(
        Array.from({ length: 310 }, (_, at) => ({
          id,
          event: { at, event: 'check', detail: { attempt: at, said: '😀 "no"' } },
        })),
      );
      await store.appendHistory([{ id: other, event: { at: 0, event: 'conflict', detail: {} } }]);
      await store.appendHistory([]);
      const history = (await store.view(id))?.history ?? [];
      expect(history.map(({ at }) => at)).toEqual(Array.from({ length: 300 }, (_, at) => at + 10));
      expect(history[0]?.detail).toEqual({ attempt: 10, said: '😀 "no"' });
    });

    test("an operator's word is on record with its reason", async () => {
      const { store } = opened();
      const { id } = await STATE_CASES['parked: unresolved'](store);
      const { state: from } = await rowOf(store, id);
      const history = {
        at: 17,
        event: 'resolve',
        detail: { action: 'recheck', operator: 'ann', reason: 'fixed' },
      } as const;
      const to = { state: 'prepared', checks: 0, unanswered: 0, dueAt: 18 } as const;
      expect(await store.resolve({ id, from, to, history })).toBe(true);
      expect(await store.resolve({ id, from, to, history })).toBe(false);
      expect((await store.view(id))?.history).toEqual([history]);
      await decide(store, id, 'commit');
    });
  });

  test('thirty-two messages fill the whole mask', async () => {
    const { store } = opened();
    const id = await prepare(store, { messages: messages(32) });
    await decide(store, id, 'commit');
    expect(await rowOf(store, id)).toMatchObject({ state: { pending: 0xffff_ffff } });
    const dueAt = await store.now();
    const save = async (done: number, pending: number, unrouted = 0) =>
      store.saveForwards([
        {
          id,
          done,
          unrouted,
          to: { state: 'committed', pending, attempts: 1, dueAt },
          history: [],
        },
      ]);
    await save(0x8000_0001, 0x7fff_fffe, 0x8000_0000);
    expect(await rowOf(store, id)).toMatchObject({ state: { pending: 0x7fff_fffe } });
    const shown = (await store.view(id))?.messages.map(({ state }) => state);
    expect(shown).toEqual(['forwarded', ...Array(30).fill('pending'), 'unrouted']);
    await save(0x7fff_fffe, 0);
    const final = await store.view(id);
    expect(final?.state).toBe('forwarded');
    expect(final?.messages.map(({ state }) => state)).toEqual([
      ...Array(31).fill('forwarded'),
      'unrouted',
    ]);

    const whole = await forwardedTransaction(store, { messages: messages(32) });
    expect((await rowOf(store, whole)).state.state).toBe('forwarded');
  });
}

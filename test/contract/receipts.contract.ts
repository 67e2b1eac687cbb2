import type { ConsumerReceipt } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Store } from '../../broker/src/domain/ports.js';
import {
  columnOf,
  decide,
  emptyStore,
  forwardedTransaction,
  messages,
  newId,
  newTransaction,
  type OpenStore,
  prepare,
} from '../support/store-fixtures.js';

const receipt = (
  id: string,
  number: number,
  consumerGroup: string,
  changes: Partial<ConsumerReceipt> = {},
): ConsumerReceipt => ({
  messageId: `${id}-${number}`,
  consumerGroup,
  kind: 'consumed',
  ...changes,
});

const nothing = { settled: [], reversed: [], late: [] };

const isSettled = async (store: Store, id: string) => (await store.view(id))?.settled;

export function receiptsContract(opened: () => OpenStore): void {
  describe('receipts', () => {
    test('a transaction settles exactly when every group has consumed every message', async () => {
      const { store } = opened();
      const groups = ['email-index', 'phone-index'];
      const shuffled = fc.shuffledSubarray(
        [0, 1, 2].flatMap((number) => groups.map((group) => [number, group] as const)),
        { minLength: 6 },
      );
      const property = fc.asyncProperty(shuffled, async (order) => {
        await emptyStore(opened());
        const content = { messages: messages(3), expects: groups };
        const id = await forwardedTransaction(store, content);
        for (const [index, [number, group]] of order.entries()) {
          const last = index === order.length - 1;
          const saved = await store.saveReceipts([receipt(id, number, group)]);
          expect(saved.settled).toEqual(last ? [id] : []);
          expect(await isSettled(store, id)).toBe(last);
        }
      });
      await fc.assert(property, { numRuns: 5 });
    });

    test('one batch settles several transactions, others of it stay open', async () => {
      const { store } = opened();
      const ids = await Promise.all(
        [1, 2, 3].map(() => forwardedTransaction(store, { expects: ['index'] })),
      );
      const [first = '', second = '', third = ''] = ids;
      const saved = await store.saveReceipts([
        receipt(first, 0, 'index'),
        receipt(second, 0, 'index', { kind: 'failed' }),
        receipt(third, 0, 'index'),
      ]);
      expect(saved.settled.sort()).toEqual([first, third].sort());
      expect(await isSettled(store, second)).toBe(false);
    });

    test('a repeated receipt changes nothing', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, { messages: messages(2), expects: ['index'] });
      await store.saveReceipts([receipt(id, 0, 'index', { attempts: 3 })]);
      const before = await store.view(id);
      const again = receipt(id, 0, 'index', { attempts: 9 });
      await store.saveReceipts([again, again]);
      expect(await store.view(id)).toEqual(before);
      expect(before?.receipts).toEqual([
        {
          consumerGroup: 'index',
          message: 0,
          kind: 'consumed',
          at: expect.any(Number),
          attempts: 3,
        },
      ]);
    });

    test('receipts that nobody waits for are ignored', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, { expects: ['index'] });
      const plain = await forwardedTransaction(store);
      const before = [await store.view(id), await store.view(plain)];
      expect(
        await store.saveReceipts([
          receipt(id, 1, 'index'),
          receipt(id, 99, 'index'),
          receipt(id, 0, 'somebody-else'),
          receipt(id, 0, 'Index'),
          receipt(plain, 0, 'index'),
          { ...receipt(id, 0, 'index'), messageId: 'not-one-of-ours' },
        ]),
      ).toEqual(nothing);
      expect([await store.view(id), await store.view(plain)]).toEqual(before);
      expect(await store.saveReceipts([])).toEqual(nothing);
    });

    test('receipts of what was never committed are ignored', async () => {
      const { store } = opened();
      const prepared = await prepare(store, { expects: ['index'] });
      const rolledBack = await prepare(store, { expects: ['index'] });
      await decide(store, rolledBack, 'rollback');
      const saved = await store.saveReceipts([
        receipt(prepared, 0, 'index'),
        receipt(rolledBack, 0, 'index'),
      ]);
      expect(saved).toEqual(nothing);
      expect(await isSettled(store, prepared)).toBe(false);
      expect((await store.view(rolledBack))?.receipts).toEqual([]);
    });

    test('a group that gave up and consumed later has consumed', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, { expects: ['index'] });
      const failed = receipt(id, 0, 'index', { kind: 'failed', cause: 'no disk', attempts: 5 });
      expect(await store.saveReceipts([failed])).toEqual(nothing);
      const shown = { consumerGroup: 'index', message: 0, at: expect.any(Number), attempts: 5 };
      expect((await store.view(id))?.receipts).toEqual([
        { ...shown, kind: 'failed', cause: 'no disk' },
      ]);

      expect((await store.saveReceipts([receipt(id, 0, 'index')])).settled).toEqual([id]);
      await store.saveReceipts([failed]);
      expect((await store.view(id))?.receipts).toEqual([{ ...shown, kind: 'consumed' }]);
      expect(await isSettled(store, id)).toBe(true);
    });

    test('a count of attempts beyond every column does not stop its batch', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, { messages: messages(2), expects: ['index'] });
      const saved = await store.saveReceipts([
        receipt(id, 0, 'index', { attempts: Number.MAX_SAFE_INTEGER }),
        receipt(id, 1, 'index'),
      ]);
      expect(saved.settled).toEqual([id]);
    });

    test('groups whose receipts come at the same moment settle it between them', async () => {
      const { store } = opened();
      const groups = ['a', 'b', 'c', 'd'];
      const ids = await Promise.all(
        Array.from({ length: 10 }, () => forwardedTransaction(store, { expects: groups })),
      );
      for (const id of ids) {
        await Promise.all(groups.map((group) => store.saveReceipts([receipt(id, 0, group)])));
        expect([id, await isSettled(store, id)]).toEqual([id, true]);
      }
    });

    test('without expected groups a forward settles, with them it does not', async () => {
      const { store } = opened();
      const plain = await forwardedTransaction(store);
      const waiting = await forwardedTransaction(store, { expects: ['index'] });
      const { state } = (await store.find([plain])).get(plain) as { state: object };
      expect(state).toEqual({
        state: 'forwarded',
        forwardedAt: await columnOf(opened(), plain, 'settled_at'),
      });
      expect(await isSettled(store, waiting)).toBe(false);
    });
  });

  describe('unsettled transactions on a business key', () => {
    test('each key has its own, with what they wait for', async () => {
      const { store } = opened();
      const content = {
        messages: messages(2),
        expects: ['a', 'b', 'c'],
        businessKeys: ['k1', 'k2'],
      };
      const at = Date.now();
      const id = await forwardedTransaction(store, { id: newId(at - 1), ...content });
      const orders = { businessKeys: ['k2'], producerGroup: 'orders' };
      const prepared = await prepare(store, { id: newId(at), ...orders });
      const done = await forwardedTransaction(store, { businessKeys: ['k1', 'k3'] });
      await store.saveReceipts([
        ...[0, 1].map((number) => receipt(id, number, 'a')),
        receipt(id, 0, 'b'),
        receipt(id, 1, 'c', { kind: 'failed' }),
      ]);
      const first = {
        id,
        producerGroup: 'accounts',
        state: 'forwarded',
        waitingFor: ['b'],
        failed: ['c'],
      };
      const second = {
        id: prepared,
        producerGroup: 'orders',
        state: 'prepared',
        waitingFor: [],
        failed: [],
      };
      const keys = ['k1', 'k2', 'k3', 'k4'];
      expect(done).not.toBe(id);
      expect([...(await store.unsettledOn(keys))]).toEqual([
        ['k1', [first]],
        ['k2', [first, second]],
        ['k3', []],
        ['k4', []],
      ]);
      expect((await store.unsettledOn(['k2'], 'orders')).get('k2')).toEqual([second]);
      expect(await store.unsettledOn([])).toEqual(new Map());
    });

    test('a key on which very much is open does not make others look settled', async () => {
      const { store } = opened();
      const at = Date.now() - 1_000;
      await store.insert(
        Array.from({ length: 250 }, () => newTransaction({ id: newId(at), businessKeys: ['hot'] })),
      );
      const late = await prepare(store, { businessKeys: ['quiet'] });
      const unsettled = await store.unsettledOn(['hot', 'quiet']);
      expect(unsettled.get('quiet')?.map(({ id }) => id)).toEqual([late]);
      expect(unsettled.get('hot')).toHaveLength(200);
    });

    test('keys are told apart by every byte', async () => {
      const { store } = opened();
      const keys = ['phone:1', 'Phone:1', 'phone:1 ', 'phone:１', 'é', 'e\u0301', '😀', "'; --"];
      const ids = await Promise.all(keys.map((key) => prepare(store, { businessKeys: [key] })));
      const unsettled = await store.unsettledOn(keys);
      expect(keys.map((key) => unsettled.get(key)?.map(({ id }) => id))).toEqual(
        ids.map((id) => [id]),
      );
    });
  });
}

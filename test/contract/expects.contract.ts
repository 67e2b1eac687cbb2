import type { ConsumerReceipt, Message } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  columnOf,
  decide,
  emptyStore,
  forward,
  forwardedTransaction,
  message,
  type OpenStore,
  prepare,
} from '../support/store-fixtures.js';

const GROUPS = ['stock', 'mail', 'ledger'];
/** One word of one group on one message. */
type Word = readonly [number: number, consumerGroup: string];

const receipt = (
  id: string,
  [number, consumerGroup]: Word,
  kind: ConsumerReceipt['kind'] = 'consumed',
): ConsumerReceipt => ({ messageId: `${id}-${number}`, consumerGroup, kind });

const wordsOf = (messages: readonly Message[]): Word[] =>
  messages.flatMap(({ expects = [] }, number) => expects.map((group) => [number, group] as const));

/** N06: groups that single messages name. */
export function expectsContract(opened: () => OpenStore): void {
  const settled = async (id: string) => (await opened().store.view(id))?.settled;
  const key = 'order:7';
  async function committed(messages: Message[]): Promise<string> {
    const { store } = opened();
    const id = await prepare(store, { messages, businessKeys: [key] });
    await decide(store, id, 'commit');
    return id;
  }

  describe('N06: groups that single messages name', () => {
    test('it settles exactly when each has consumed every message that names it', async () => {
      const { store } = opened();
      const lists = fc.array(fc.subarray(GROUPS), { minLength: 1, maxLength: 4 });
      const shuffled = lists
        .map((groups) => groups.map((expects) => message({ expects })))
        .filter((messages) => wordsOf(messages).length > 0)
        .chain((messages) => {
          const all = wordsOf(messages);
          return fc.tuple(
            fc.constant(messages),
            fc.shuffledSubarray(all, { minLength: all.length }),
          );
        });
      const property = fc.asyncProperty(shuffled, async ([messages, order]) => {
        await emptyStore(opened());
        const id = await forwardedTransaction(store, { messages, businessKeys: [key] });
        // Of messages that do not name them, groups may say what they like.
        const unasked = messages.flatMap(({ expects = [] }, number) =>
          GROUPS.filter((group) => !expects.includes(group)).map(
            (group) => [number, group] as const,
          ),
        );
        await store.saveReceipts(unasked.map((word) => receipt(id, word)));
        expect((await store.view(id))?.receipts).toEqual([]);
        for (const [index, word] of order.entries()) {
          const rest = order.slice(index).map(([, group]) => group);
          const [one] = (await store.unsettledOn([key])).get(key) ?? [];
          expect([...(one?.waitingFor ?? [])].sort()).toEqual([...new Set(rest)].sort());
          const saved = await store.saveReceipts([receipt(id, word)]);
          expect(saved.settled).toEqual(index === order.length - 1 ? [id] : []);
        }
        expect((await store.unsettledOn([key])).get(key)).toEqual([]);
      });
      await fc.assert(property, { numRuns: 8 });
    });

    test('a message that names none is not waited for, not even until it has left', async () => {
      const { store } = opened();
      const id = await committed([
        message({ expects: ['stock'] }),
        message({ routingKey: 'unpaid', delayMs: 60_000 }),
      ]);
      const saved = await store.saveReceipts([receipt(id, [0, 'stock'])]);
      expect(saved.settled).toEqual([id]);
      const view = await store.view(id);
      expect(view).toMatchObject({
        settled: true,
        state: 'committed',
        expects: [],
        groups: [{ consumerGroup: 'stock', state: 'consumed' }],
      });
      expect(view?.messages.map(({ expects }) => expects)).toEqual([['stock'], undefined]);
      const settledAt = await columnOf(opened(), id, 'settled_at');
      await forward(store, [id]);
      expect(await columnOf(opened(), id, 'settled_at')).toBe(settledAt);
    });

    test('where no message names any, it settles when it is forwarded', async () => {
      const id = await forwardedTransaction(opened().store, {
        messages: [message({ expects: [] })],
      });
      expect(await settled(id)).toBe(true);
      expect((await opened().store.view(id))?.groups).toEqual([]);
    });

    test('a cancelled message is not waited for, and the others are', async () => {
      const { store } = opened();
      const later = (expects: string[]) => message({ expects, delayMs: 60_000 });
      const cancel = (id: string, numbers: number[]) =>
        store.cancel({ id, numbers, by: 'producer', reason: 'x' });
      const id = await committed([later(['mail']), later(['stock', 'mail']), message()]);
      await cancel(id, [0]);
      expect(await columnOf(opened(), id, 'receipts_wanted')).toBe(2);
      await store.saveReceipts([receipt(id, [1, 'stock'])]);
      expect(await settled(id)).toBe(false);
      await store.saveReceipts([receipt(id, [1, 'mail'])]);
      expect(await settled(id)).toBe(true);

      const nobodyLeft = await committed([later(['mail']), message()]);
      await cancel(nobodyLeft, [0]);
      expect(await settled(nobodyLeft)).toBe(false);
      await forward(store, [nobodyLeft]);
      expect(await settled(nobodyLeft)).toBe(true);
    });

    test('compensation hangs on the groups of its own message', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, {
        messages: [
          message({ expects: ['stock'], compensate: true }),
          message({ expects: ['mail'] }),
          message({ expects: ['ledger'], compensate: true }),
        ],
      });
      const all = [0, 1, 2].flatMap((number) => GROUPS.map((group) => [number, group] as const));
      await store.saveReceipts(all.map((word) => receipt(id, word, 'failed')));
      const view = await store.view(id);
      expect(view?.compensations.map((one) => [one.message, one.consumerGroup])).toEqual([
        [2, 'ledger'],
        [0, 'stock'],
      ]);
      expect(view?.receipts).toHaveLength(3);
    });

    test('groups that consume different messages at the same moment settle it between them', async () => {
      const { store } = opened();
      for (let round = 0; round < 10; round += 1) {
        const messages = GROUPS.map((group) => message({ expects: [group] }));
        const id = await forwardedTransaction(store, { messages });
        await Promise.all(
          GROUPS.map((group, number) => store.saveReceipts([receipt(id, [number, group])])),
        );
        expect(await settled(id)).toBe(true);
      }
    });
  });
}

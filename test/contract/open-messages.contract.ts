import type { MessageData } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { Verdict } from '../../broker/src/domain/ports.js';
import { byProducer, type Message } from '../../broker/src/domain/transaction.js';
import {
  columnOf,
  decide,
  forward,
  message,
  type OpenStore,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';

const { data: _, ...bare } = message();
const open: Message = { ...bare, dataAtCommit: true };
/** Message 1 waits for its data. */
const MESSAGES = [message({ data: 'here' }), open];
const BYTES_MAX = 10_000;

const commit = (id: string, data?: MessageData[], changes: Partial<Verdict> = {}): Verdict => ({
  id,
  decision: 'commit',
  decidedBy: byProducer,
  ...(data === undefined ? {} : { supplied: { data, bytesMax: BYTES_MAX } }),
  ...changes,
});
const late = (data: unknown): MessageData[] => [{ number: 1, data }];

export function openMessagesContract(opened: () => OpenStore): void {
  describe('data that comes with the commit', () => {
    const prepared = () => prepare(opened().store, { messages: MESSAGES });
    const stored = async (id: string) =>
      JSON.parse(String(await columnOf(opened(), id, 'messages'))) as Message[];

    test('a commit with the data decides and fills in one step, and is forwarded whole', async () => {
      const { store } = opened();
      const id = await prepared();
      expect(await store.decide([commit(id, late({ ü: "'\\" }))], 0)).toEqual([{ kind: 'moved' }]);
      const [committed] = await store.readCommitted([id]);
      expect(committed?.messages).toEqual([MESSAGES[0], { ...bare, data: { ü: "'\\" } }]);
      expect(committed).toMatchObject({ pending: 0b11, attempts: 0 });
      expect(committed?.bytes).toBe(Buffer.byteLength(JSON.stringify(committed?.messages)));
      expect((await rowOf(store, id)).decision).toMatchObject({
        decision: 'commit',
        by: 'producer',
      });
      const claim = { limit: 10, bytesMax: 1_000_000, leaseMs: 0 };
      const { due } = await store.claimDueForwards(claim);
      expect(due.map(({ messages }) => messages)).toEqual([committed?.messages]);
      await forward(store, [id]);
      expect((await rowOf(store, id)).state.state).toBe('forwarded');
    });

    test('a commit without the data is refused by the numbers that lack it, and decides nothing', async () => {
      const { store } = opened();
      const id = await prepared();
      const whole = await prepare(store);
      const before = await rowOf(store, id);
      expect(before.takesMore).toBe(true);
      const refused = { kind: 'refused', refusal: { kind: 'missing', numbers: [1] } };
      // In one flush with a commit that needs none.
      expect(await store.decide([commit(id), commit(whole)], 0)).toEqual([
        refused,
        { kind: 'moved' },
      ]);
      const byOperator = commit(id, undefined, { decidedBy: { by: 'operator ann', reason: 'x' } });
      expect(await store.decide([byOperator], 0)).toEqual([refused]);
      expect(await rowOf(store, id)).toEqual(before);
      expect(await stored(id)).toEqual(MESSAGES);
      expect(await store.decide([commit(id, late(1))], 0)).toEqual([{ kind: 'moved' }]);
    });

    test.each([
      ['is not open', [{ number: 0, data: 1 }, ...late(2)], { kind: 'notOpen', numbers: [0] }],
      ['is not there', [...late(2), { number: 7, data: 1 }], { kind: 'notOpen', numbers: [7] }],
      [
        'is too large',
        late('x'.repeat(BYTES_MAX)),
        { kind: 'tooLarge', bytes: expect.any(Number), bytesMax: BYTES_MAX },
      ],
    ])('data for a message that %s decides nothing', async (_what, data, refusal) => {
      const { store } = opened();
      const id = await prepared();
      const before = await rowOf(store, id);
      expect(await store.decide([commit(id, data)], 0)).toEqual([{ kind: 'refused', refusal }]);
      expect(await rowOf(store, id)).toEqual(before);
      expect(await stored(id)).toEqual(MESSAGES);
    });

    test('data for a transaction that left nothing open is refused', async () => {
      const { store } = opened();
      const id = await prepare(store);
      expect(await store.decide([commit(id, [{ number: 0, data: 2 }])], 0)).toEqual([
        { kind: 'refused', refusal: { kind: 'notOpen', numbers: [0] } },
      ]);
      expect((await rowOf(store, id)).decision).toBeUndefined();
    });

    test('a repeated commit succeeds with the same, other or no data, and the first data stands', async () => {
      const { store } = opened();
      const id = await prepared();
      await store.decide([commit(id, late('first'))], 0);
      const found = await rowOf(store, id);
      expect(found.takesMore).toBeUndefined();
      for (const data of [late('first'), late('second'), undefined]) {
        expect(await store.decide([commit(id, data)], 0)).toEqual([{ kind: 'decided', found }]);
      }
      expect((await stored(id))[1]).toEqual({ ...bare, data: 'first' });
    });

    test('of two commits with other data one fills, and the other sees it decided', async () => {
      const { store } = opened();
      const id = await prepared();
      const results = await Promise.all(
        ['a', 'b'].map((data) => store.decide([commit(id, late(data))], 0)),
      );
      const kinds = results.flat().map(({ kind }) => kind);
      expect([...kinds].sort()).toEqual(['decided', 'moved']);
      const winner = ['a', 'b'][kinds.indexOf('moved')];
      expect((await stored(id))[1]).toEqual({ ...bare, data: winner });
    });

    test('a rollback drops what is open, and a commit with data comes too late', async () => {
      const { store } = opened();
      const id = await prepared();
      await decide(store, id, 'rollback');
      const found = await rowOf(store, id);
      expect(found.takesMore).toBeUndefined();
      expect(await store.decide([commit(id, late(1))], 0)).toEqual([{ kind: 'decided', found }]);
      expect((await store.view(id))?.messages).toMatchObject([
        { state: 'rolledBack' },
        { state: 'rolledBack', bytes: 0, dataAtCommit: true },
      ]);
    });

    test("another group's data decides nothing, nor does data for an id that there is not", async () => {
      const { store } = opened();
      const id = await prepared();
      const foreign = commit(id, late(1), { producerGroup: 'somebody-else' });
      const absent = commit('0198f3c2-7a10-7cc3-98c4-dc0c0c07398f', late(1));
      expect(await store.decide([foreign, absent], 0)).toEqual([
        { kind: 'unknown' },
        { kind: 'unknown' },
      ]);
      const foreignWithout = commit(id, undefined, { producerGroup: 'somebody-else' });
      expect(await store.decide([foreignWithout], 0)).toEqual([{ kind: 'unknown' }]);
      expect((await rowOf(store, id)).decision).toBeUndefined();
    });

    test('a check and a parked transaction take the data as a verdict does, with who decided', async () => {
      const { store, database } = opened();
      const id = await prepared();
      await database.run(
        `update escrow_transaction set state = 'parked', parked_reason = 'unresolved', parked_at = 17`,
      );
      const decidedBy = { by: 'check pull' };
      const own = { decidedBy, producerGroup: 'accounts' };
      expect(await store.decide([commit(id, late(1), own)], 0)).toEqual([{ kind: 'moved' }]);
      expect((await rowOf(store, id)).decision).toMatchObject({ by: 'check pull' });
      expect((await store.view(id))?.parkedReason).toBeUndefined();
    });

    test('many commits with data of one flush each get their own', async () => {
      const { store } = opened();
      const ids = [];
      for (let n = 0; n < 20; n += 1) ids.push(await prepared());
      const results = await store.decide(
        ids.map((id, n) => commit(id, late(n))),
        0,
      );
      expect(results).toEqual(ids.map(() => ({ kind: 'moved' })));
      const committed = await store.readCommitted(ids);
      const byId = new Map(committed.map(({ id, messages }) => [id, messages[1]?.data]));
      expect(ids.map((id) => byId.get(id))).toEqual(ids.map((_id, n) => n));
    });

    test('an open message is shown as one, without bytes, and filled with them', async () => {
      const { store } = opened();
      const id = await prepared();
      const shown = async () => (await store.view(id))?.messages[1];
      expect(await shown()).toMatchObject({
        contentType: '',
        bytes: 0,
        dataAtCommit: true,
        state: 'half',
      });
      await store.decide([commit(id, late('abc'))], 0);
      expect(await shown()).toMatchObject({
        contentType: 'application/json',
        bytes: 5,
        state: 'pending',
      });
      expect(await shown()).not.toHaveProperty('dataAtCommit');
    });
  });
}

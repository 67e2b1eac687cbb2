import { describe, expect, test } from '@jest/globals';
import type { ForwardingToSave, Store, Verdict } from '../../broker/src/domain/ports.js';
import {
  byProducer,
  type Committed,
  type Message,
  type NewTransaction,
} from '../../broker/src/domain/transaction.js';
import type { Database, Sql } from '../../broker/src/store/sql.js';
import { createStore } from '../../broker/src/store/store.js';
import {
  columnOf,
  decide,
  message,
  newTransaction,
  type OpenStore,
  prepare,
  rowOf,
  type TransactionChanges,
} from '../support/store-fixtures.js';

const FORWARDS = { limit: 100, bytesMax: 1_000_000, leaseMs: 60_000 };
const commit = (id: string, changes: Partial<Verdict> = {}): Verdict => ({
  id,
  decision: 'commit',
  decidedBy: byProducer,
  ...changes,
});
const moved = { kind: 'moved' };
const ordered = (orderingKey: string, changes: Partial<Message> = {}): Message =>
  message({ orderingKey, ...changes });
const { data: _, ...bare } = message();
const openAndOrdered: Message = { ...bare, dataAtCommit: true, orderingKey: 'a' };

/** The save of a round in which these messages were confirmed; without any, all that were ready. */
export async function confirmed(
  store: Store,
  row: Committed,
  changes: Partial<ForwardingToSave> = {},
): Promise<ForwardingToSave> {
  const heads = (row.places ?? []).filter(({ isHead }) => isHead);
  const done = changes.done ?? heads.reduce((mask, { number }) => mask + 2 ** number, 0);
  const pending = (row.pending & ~done) >>> 0;
  const at = await store.now();
  return {
    id: row.id,
    done,
    unrouted: 0,
    to:
      pending === 0
        ? { state: 'forwarded', forwardedAt: at }
        : { state: 'committed', pending, attempts: 0, dueAt: at + 600_000 },
    onlyWaits: true,
    history: [],
    ...(row.places === undefined ? {} : { places: row.places }),
    ...changes,
  };
}

export function orderingContract(opened: () => OpenStore): void {
  const prepared = (messages: Message[], changes: TransactionChanges = {}) =>
    prepare(opened().store, { messages, ...changes });
  const committed = async (messages: Message[]) => {
    const id = await prepared(messages);
    await decide(opened().store, id, 'commit');
    return id;
  };
  const sent = (messages: Message[]) =>
    newTransaction({ messages, kind: { op: 'send', leaseMs: 0 } });

  /** Sequence, transaction and message number of all that is in line, by its key. */
  async function lines(): Promise<Record<string, [number, string, number][]>> {
    const rows = await opened().database.all<{
      topic: string;
      ordering_key: Uint8Array;
      sequence: number;
      id: string;
      number: number;
    }>(
      `select topic, ordering_key, sequence, lower(hex(transaction_id)) as id, message_number as number
       from escrow_ordered_message m join escrow_ordering_key k on k.key_id = m.key_id
       order by topic, ordering_key, sequence`,
    );
    const byKey: Record<string, [number, string, number][]> = {};
    for (const { topic, ordering_key, sequence, id, number } of rows) {
      const name = `${topic} ${Buffer.from(ordering_key).toString()}`;
      byKey[name] = [...(byKey[name] ?? []), [sequence, id, number]];
    }
    return byKey;
  }
  const plainId = (id: string) => id.replaceAll('-', '');
  const sequences = async () =>
    Object.fromEntries(
      Object.entries(await lines()).map(([key, line]) => [key, line.map(([sequence]) => sequence)]),
    );
  const claim = async (store = opened().store) => (await store.claimDueForwards(FORWARDS)).due;
  /** Claims what is due, which must be these, and confirms all of it that is ready. */
  async function forwardNext(...ids: string[]): Promise<string[]> {
    const { store } = opened();
    const due = await claim();
    expect(due.map(({ id }) => id).sort()).toEqual([...ids].sort());
    const saves = await Promise.all(due.map((row) => confirmed(store, row)));
    return (await store.saveForwards(saves)).woken;
  }
  const shown = async (id: string) =>
    (await opened().store.view(id))?.messages.map(({ ordering }) => ordering);

  describe('places in the line of a key', () => {
    test('commits number the messages of each topic and key from 1 and without gaps', async () => {
      const first = await committed([ordered('a'), ordered("ü\\'"), ordered('a')]);
      const second = await committed([ordered('a', { topic: 'other' }), message(), ordered('a')]);
      const [a, b] = [plainId(first), plainId(second)];
      expect(await lines()).toEqual({
        'other a': [[1, b, 0]],
        'user a': [
          [1, a, 0],
          [2, a, 2],
          [3, b, 2],
        ],
        "user ü\\'": [[1, a, 1]],
      });
      expect(await rowOf(opened().store, second)).toMatchObject({ state: { pending: 0b111 } });
    });

    test('the commits of one flush get places in the order in which they came', async () => {
      const { store } = opened();
      const ids = [];
      for (let n = 0; n < 5; n += 1) ids.push(await prepared([ordered('a')]));
      const batch = [...ids].reverse();
      expect(
        await store.decide(
          batch.map((id) => commit(id)),
          0,
        ),
      ).toEqual(ids.map(() => moved));
      expect((await lines())['user a']).toEqual(batch.map((id, n) => [n + 1, plainId(id), 0]));
    });

    test('a prepare has none, nor has what is rolled back', async () => {
      await prepared([ordered('a')]);
      await decide(opened().store, await prepared([ordered('a')]), 'rollback');
      expect(await lines()).toEqual({});
      await committed([ordered('a')]);
      expect(await sequences()).toEqual({ 'user a': [1] });
    });

    test('a repeated commit, also one of several at once, gives no second place', async () => {
      const { store } = opened();
      const id = await prepared([ordered('a')]);
      const results = await Promise.all([1, 2, 3].map(() => store.decide([commit(id)], 0)));
      expect(
        results
          .flat()
          .map(({ kind }) => kind)
          .sort(),
      ).toEqual(['decided', 'decided', 'moved']);
      const found = await rowOf(store, id);
      expect(await store.decide([commit(id)], 0)).toEqual([{ kind: 'decided', found }]);
      expect(await sequences()).toEqual({ 'user a': [1] });
    });

    test('a commit that runs again because its answer was lost gives no second place', async () => {
      const { database } = opened();
      const id = await prepared([ordered('a')]);
      const twice: Database = {
        ...database,
        transaction: async (work) => {
          await database.transaction(work);
          return database.transaction(work);
        },
      };
      expect(await createStore(twice, 'test').decide([commit(id)], 0)).toEqual([moved]);
      expect(await sequences()).toEqual({ 'user a': [1] });
    });

    test('a commit that fails behind its sequences leaves neither decision nor gap', async () => {
      const { store, database } = opened();
      const id = await prepared([ordered('a')]);
      const failing: Database = {
        ...database,
        transaction: (work) =>
          database.transaction(async (sql) => {
            await work(sql);
            throw new Error('the database went away');
          }),
      };
      await expect(createStore(failing, 'test').decide([commit(id)], 0)).rejects.toThrow(
        'went away',
      );
      expect(await rowOf(store, id)).toMatchObject({
        state: { state: 'prepared' },
        takesMore: true,
      });
      expect(await lines()).toEqual({});
      expect(await store.decide([commit(id)], 0)).toEqual([moved]);
      expect(await sequences()).toEqual({ 'user a': [1] });
    });

    test('plain, ordered, open and absent transactions of one flush each get their answer', async () => {
      const { store } = opened();
      const plain = await prepared([message()]);
      const inLine = await prepared([ordered('a')]);
      const filled = await prepared([openAndOrdered]);
      const unfilled = await prepared([openAndOrdered]);
      const rolledBack = await prepared([ordered('a')]);
      await decide(store, rolledBack, 'rollback');
      const found = await rowOf(store, rolledBack);
      const absent = newTransaction().id;
      const supplied = { data: [{ number: 0, data: 'late' }], bytesMax: 1_000 };
      const verdicts = [
        commit(plain),
        commit(filled, { supplied }),
        commit(rolledBack),
        commit(unfilled),
        commit(inLine),
        commit(absent),
        commit(await prepared([ordered('a')]), { producerGroup: 'somebody-else' }),
        commit(await prepared([ordered('a')]), { decidedBy: { by: 'operator ann', reason: 'x' } }),
      ];
      expect(await store.decide(verdicts, 0)).toEqual([
        moved,
        moved,
        { kind: 'decided', found },
        { kind: 'refused', refusal: { kind: 'missing', numbers: [0] } },
        moved,
        { kind: 'unknown' },
        { kind: 'unknown' },
        moved,
      ]);
      const byOperator = verdicts[7]?.id ?? '';
      expect((await lines())['user a']).toEqual(
        [filled, inLine, byOperator].map((id, n) => [n + 1, plainId(id), 0]),
      );
      expect((await rowOf(store, byOperator)).decision?.by).toBe('operator ann');
      expect((await rowOf(store, inLine)).decision?.by).toBe('producer');
    });

    test('a send gets its places when it is inserted, and a repeat none', async () => {
      const { store } = opened();
      const [one, two, plain] = [sent([ordered('a')]), sent([ordered('a')]), sent([message()])];
      expect(await store.insert([one])).toEqual([{ kind: 'created' }]);
      // The taken id makes the INSERT of all fail; what is new is inserted by a second one.
      const results = await store.insert([one, plain, two]);
      expect(results.map(({ kind }) => kind)).toEqual(['repeated', 'created', 'created']);
      expect((await lines())['user a']).toEqual([
        [1, plainId(one.id), 0],
        [2, plainId(two.id), 0],
      ]);
    });
  });

  describe('forwarding in order', () => {
    test('only the head of a key is claimed, and its confirm makes the next one due', async () => {
      const { store } = opened();
      const ids = [];
      for (let n = 0; n < 3; n += 1) ids.push(await committed([ordered('a')]));
      const [first = '', second = '', third = ''] = ids;
      const other = await committed([ordered('b')]);
      const { due, putOff } = await store.claimDueForwards(FORWARDS);
      expect(due.map(({ id }) => id).sort()).toEqual([first, other].sort());
      expect(due.find(({ id }) => id === first)?.places).toMatchObject([
        { number: 0, sequence: 1, isHead: true },
      ]);
      expect(putOff).toBe(2);
      expect(await claim()).toEqual([]);
      const saves = await Promise.all(due.map((row) => confirmed(store, row)));
      expect(await store.saveForwards(saves)).toEqual({ woken: [second] });
      expect((await rowOf(store, first)).state.state).toBe('forwarded');
      expect(await forwardNext(second)).toEqual([third]);
      expect(await forwardNext(third)).toEqual([]);
      expect(await lines()).toEqual({});
      // The next number stays known when nothing is in line any more.
      await committed([ordered('a')]);
      expect(await sequences()).toEqual({ 'user a': [4] });
    });

    test('what is read right after its commit tells the head from what waits', async () => {
      const { store } = opened();
      const ids = [
        await committed([ordered('a')]),
        await committed([ordered('a')]),
        await committed([message()]),
      ];
      const rows = await store.readCommitted(ids);
      expect(rows).toHaveLength(3);
      // Rows come by their ids, and ids of one millisecond in any order.
      const heads = new Map(rows.map(({ id, places }) => [id, places?.map((one) => one.isHead)]));
      expect(ids.map((id) => heads.get(id))).toEqual([[true], [false], undefined]);
    });

    test('two messages of one key in one transaction go one after the other', async () => {
      const id = await committed([ordered('a'), message(), ordered('a')]);
      const { store } = opened();
      const [row] = await claim();
      if (row === undefined) throw new Error('nothing was due');
      expect(row.places?.map(({ isHead }) => isHead)).toEqual([true, false]);
      const save = await confirmed(store, row, { done: 0b011 });
      expect(await store.saveForwards([save])).toEqual({ woken: [id] });
      const [again] = await claim();
      expect(again).toMatchObject({ id, pending: 0b100, attempts: 0 });
      expect(again?.places).toMatchObject([{ number: 2, sequence: 2, isHead: true }]);
    });

    test('a message that comes to the head while its transaction is being saved is not forgotten', async () => {
      const { store } = opened();
      const first = await committed([ordered('a')]);
      const second = await committed([ordered('b'), ordered('a')]);
      const due = await claim();
      const rowOfId = (id: string) => due.find((row) => row.id === id) as Committed;
      // The second was published as far as it may go; meanwhile the first is confirmed.
      await store.saveForwards([await confirmed(store, rowOfId(first))]);
      await store.saveForwards([await confirmed(store, rowOfId(second))]);
      await forwardNext(second);
      expect(await lines()).toEqual({});
    });

    test('a parked transaction holds its key, says so, and lets go of it when it is sent again', async () => {
      const { store } = opened();
      const first = await committed([ordered('a'), message()]);
      const second = await committed([ordered('a')]);
      const [row] = await claim();
      if (row === undefined) throw new Error('nothing was due');
      const parkedAt = await store.now();
      const parked = { state: 'parked', reason: 'undeliverable', pending: 1, parkedAt } as const;
      const save = await confirmed(store, row, { done: 0b10, to: parked, onlyWaits: false });
      expect(await store.saveForwards([save])).toEqual({ woken: [] });
      expect(await claim()).toEqual([]);
      expect(await shown(second)).toEqual([
        {
          key: 'a',
          sequence: 2,
          waitsFor: {
            transactionId: first,
            messageId: `${first}-0`,
            sequence: 1,
            state: 'parked',
          },
        },
      ]);
      expect(await shown(first)).toEqual([{ key: 'a', sequence: 1 }, undefined]);
      const to = { state: 'committed', pending: 1, attempts: 0, dueAt: parkedAt } as const;
      const detail = { action: 'resend' };
      const history = { at: parkedAt, event: 'resolve', detail } as const;
      expect(await store.resolve({ id: first, from: parked, to, history })).toBe(true);
      expect(await forwardNext(first)).toEqual([second]);
      expect(await shown(second)).toEqual([{ key: 'a', sequence: 2 }]);
      expect(await forwardNext(second)).toEqual([]);
      expect(await shown(second)).toEqual([{ key: 'a' }]);
    });

    test('a confirm that comes when another instance has parked the transaction keeps its place', async () => {
      const { store } = opened();
      const first = await committed([ordered('a')]);
      await committed([ordered('a')]);
      const [row] = await claim();
      if (row === undefined) throw new Error('nothing was due');
      const late = await confirmed(store, row);
      const to = { state: 'parked', reason: 'undeliverable', pending: 1, parkedAt: 1 } as const;
      await store.saveForwards([{ ...late, done: 0, to, onlyWaits: false }]);
      expect(await store.saveForwards([late])).toEqual({ woken: [] });
      expect((await rowOf(store, first)).state.state).toBe('parked');
      expect(await sequences()).toEqual({ 'user a': [1, 2] });
    });

    test('what nobody was bound for and is dropped lets the next one go', async () => {
      const { store } = opened();
      await committed([ordered('a', { ifUnrouted: 'drop' })]);
      const second = await committed([ordered('a')]);
      const [row] = await claim();
      if (row === undefined) throw new Error('nothing was due');
      const save = await confirmed(store, row, { unrouted: 1 });
      expect(await store.saveForwards([save])).toEqual({ woken: [second] });
      await forwardNext(second);
    });

    test('a save that runs again because its answer was lost takes nothing twice', async () => {
      const { store, database } = opened();
      await committed([ordered('a')]);
      const second = await committed([ordered('a')]);
      const [row] = await claim();
      if (row === undefined) throw new Error('nothing was due');
      const twice: Database = {
        ...database,
        transaction: async (work) => {
          await database.transaction(work);
          return database.transaction(work);
        },
      };
      await createStore(twice, 'test').saveForwards([await confirmed(store, row)]);
      expect(await sequences()).toEqual({ 'user a': [2] });
      await forwardNext(second);
    });

    test('a delayed message holds its key until it is cancelled', async () => {
      const { store } = opened();
      const first = await committed([ordered('a', { delayMs: 60_000 })]);
      const second = await committed([ordered('a', { delayMs: 50_000 })]);
      const third = await committed([ordered('a')]);
      const { due, putOff } = await store.claimDueForwards(FORWARDS);
      expect([due.map(({ id }) => id), putOff]).toEqual([[first], 2]);
      expect(await shown(third)).toMatchObject([
        { sequence: 3, waitsFor: { transactionId: first, state: 'committed' } },
      ]);
      const cancel = (id: string) => store.cancel({ id, by: 'producer', reason: 'test' });
      const leasedUntil = await columnOf(opened(), first, 'due_at');
      expect(await cancel(second)).toMatchObject({ kind: 'cancelled' });
      // It left from the middle: who has the head in hand keeps it.
      expect(await columnOf(opened(), first, 'due_at')).toEqual(leasedUntil);
      expect(await sequences()).toEqual({ 'user a': [1, 3] });
      expect(await cancel(first)).toMatchObject({ kind: 'cancelled' });
      await forwardNext(third);
      expect(await lines()).toEqual({});
    });

    test('what waits in line and for a time is looked at again at that time', async () => {
      const { store } = opened();
      await committed([ordered('a')]);
      const deliverAt = (await store.now()) + 90_000;
      const both = await committed([ordered('a'), message({ deliverAt })]);
      const { putOff } = await store.claimDueForwards(FORWARDS);
      expect(putOff).toBe(1);
      expect(await columnOf(opened(), both, 'due_at')).toBe(deliverAt);
    });
  });

  describe('what transactions without a key cost', () => {
    /** Every statement, with its lists of values and rows cut to one. */
    function recording(database: Database): { recorded: Database; statements: string[] } {
      const statements: string[] = [];
      const note = (text: string) =>
        statements.push(
          text
            .replace(/\s+/g, ' ')
            .replace(/in \([^()]*\)/g, 'in (…)')
            .trim(),
        );
      const on = (sql: Sql): Sql => ({
        all: (text, values) => {
          note(text);
          return sql.all(text, values);
        },
        run: (text, values) => {
          note(text);
          return sql.run(text, values);
        },
        insertRows: (insert) => {
          note(`insert into ${insert.table}`);
          return sql.insertRows(insert);
        },
      });
      return {
        statements,
        recorded: {
          ...database,
          ...on(database),
          transaction: (work) => {
            note('start transaction');
            return database.transaction((sql) => work(on(sql)));
          },
        },
      };
    }

    const batch = (): NewTransaction[] => [1, 2, 3].map(() => newTransaction());

    test('an insert, an update and an update, and nothing else', async () => {
      const { recorded, statements } = recording(opened().database);
      const store = createStore(recorded, 'test');
      const transactions = batch();
      await store.insert(transactions);
      await store.decide(
        transactions.map(({ id }) => commit(id)),
        60_000,
      );
      const at = await opened().store.now();
      await store.saveForwards(
        transactions.map(({ id }) => ({
          id,
          done: 1,
          unrouted: 0,
          to: { state: 'forwarded', forwardedAt: at },
          history: [],
        })),
      );
      expect(statements).toEqual([
        'insert into escrow_transaction',
        expect.stringMatching(/^update escrow_transaction .*set state = 'committed'/),
        expect.stringMatching(/^update escrow_transaction .*set state = 'forwarded'/),
      ]);
    });

    test('a claim reads no lines for them, and one query for all that are ordered', async () => {
      const { recorded, statements } = recording(opened().database);
      const store = createStore(recorded, 'test');
      const due = () => store.claimDueForwards(FORWARDS);
      for (let n = 0; n < 3; n += 1) await committed([message()]);
      expect((await due()).due).toHaveLength(3);
      const plain = statements.splice(0);
      expect(plain.filter((text) => text.includes('escrow_order'))).toEqual([]);
      for (let n = 0; n < 3; n += 1) await committed([ordered(`key ${n}`)]);
      expect((await due()).due).toHaveLength(3);
      expect(statements).toHaveLength(plain.length + 1);
    });
  });
}

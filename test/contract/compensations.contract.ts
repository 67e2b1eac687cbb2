import { CheckPolicy, type ConsumerReceipt, type HistoryEvent } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { CompensationToSave, DueCompensation } from '../../broker/src/domain/compensations.js';
import type { Store } from '../../broker/src/domain/ports.js';
import { createStore } from '../../broker/src/store/store.js';
import {
  forwardedTransaction,
  message,
  newId,
  type OpenStore,
  prepare,
  type TransactionChanges,
} from '../support/store-fixtures.js';

const CLAIM = { limit: 100, leaseMs: 60_000, exceptGroups: [] };
const PURGE = { olderThanMs: 0, limit: 100 };

const receipt = (
  id: string,
  kind: ConsumerReceipt['kind'],
  changes: Partial<ConsumerReceipt> = {},
): ConsumerReceipt => ({ messageId: `${id}-0`, consumerGroup: 'index', kind, ...changes });

const compensable = (store: Store, changes: TransactionChanges = {}): Promise<string> =>
  forwardedTransaction(store, {
    expects: ['index'],
    messages: [message({ compensate: true })],
    ...changes,
  });

/** A transaction whose group gave up on its message. */
async function failed(store: Store, changes: TransactionChanges = {}): Promise<string> {
  const id = await compensable(store, changes);
  await store.saveReceipts([receipt(id, 'failed', { attempts: 5, cause: 'no disk' })]);
  return id;
}

async function claimed(store: Store): Promise<DueCompensation> {
  const { due } = await store.claimDueCompensations(CLAIM);
  expect(due).toHaveLength(1);
  return due[0]!;
}

const acknowledged = (due: DueCompensation): CompensationToSave => ({
  due,
  result: { kind: 'acknowledged' },
});

const unanswered = (
  due: DueCompensation,
  changes: Partial<Extract<CompensationToSave['result'], { kind: 'unanswered' }>> = {},
): CompensationToSave => ({
  due,
  result: {
    kind: 'unanswered',
    called: true,
    dueAt: Date.now() - 1_000,
    lastFailure: 'HTTP 503',
    alerted: false,
    ...changes,
  },
});

const HISTORY: HistoryEvent = {
  at: 1_700_000_000_000,
  event: 'resolve',
  detail: { action: 'compensated', operator: 'ann', reason: 'undone by hand' },
};

const compensations = async (store: Store, id: string) => (await store.view(id))?.compensations;

export function compensationsContract(opened: () => OpenStore): void {
  describe('compensations', () => {
    test('a group that gives up for good makes one owed, with all that the call tells', async () => {
      const { store } = opened();
      const trace = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' };
      const id = await failed(store, {
        checkContext: 'shard-3',
        businessKeys: ['phone:1'],
        preparedAt: 1_700_000_000_000,
        trace,
      });
      expect(await compensations(store, id)).toEqual([
        { consumerGroup: 'index', message: 0, state: 'owed', attempts: 0, at: expect.any(Number) },
      ]);
      expect((await store.counts()).compensationsOwed).toBe(1);
      const { now, due } = await store.claimDueCompensations(CLAIM);
      expect(due).toEqual([
        {
          id,
          message: 0,
          consumerGroup: 'index',
          producerGroup: 'accounts',
          checkContext: 'shard-3',
          businessKeys: ['phone:1'],
          preparedAt: 1_700_000_000_000,
          trace,
          failedAttempts: 5,
          cause: 'no disk',
          requestedAt: expect.any(Number),
          attempts: 1,
          failures: 0,
          alerted: false,
        },
      ]);
      expect(now).toBeGreaterThanOrEqual(due[0]!.requestedAt);
    });

    test('only messages that ask for it are compensated, each for each group that gives up', async () => {
      const { store } = opened();
      const id = await compensable(store, {
        expects: ['a', 'b'],
        messages: [message(), message({ compensate: true })],
      });
      const failures = [0, 1].flatMap((number) =>
        ['a', 'b'].map((consumerGroup) =>
          receipt(id, 'failed', { messageId: `${id}-${number}`, consumerGroup }),
        ),
      );
      await store.saveReceipts(failures);
      const { due } = await store.claimDueCompensations(CLAIM);
      const keys = due.map((one) => [one.message, one.consumerGroup]).sort();
      expect(keys).toEqual([
        [1, 'a'],
        [1, 'b'],
      ]);
    });

    test('the last of 32 messages is compensated as well', async () => {
      const { store } = opened();
      const plain = Array.from({ length: 31 }, () => message());
      const id = await compensable(store, { messages: [...plain, message({ compensate: true })] });
      await store.saveReceipts([receipt(id, 'failed', { messageId: `${id}-31` })]);
      expect(await claimed(store)).toMatchObject({ id, message: 31 });
    });

    test('what was sent in one step says so', async () => {
      const { store } = opened();
      const id = await prepare(store, {
        expects: ['index'],
        messages: [message({ compensate: true })],
        kind: { op: 'send', leaseMs: 0 },
      });
      await store.saveReceipts([receipt(id, 'failed')]);
      expect(await claimed(store)).toMatchObject({ sent: true });
    });

    test('a repeated failure owes nothing more, before the acknowledgement and after it', async () => {
      const { store } = opened();
      const id = await failed(store);
      await store.saveReceipts([receipt(id, 'failed'), receipt(id, 'failed')]);
      const due = await claimed(store);
      expect(await store.saveCompensations([acknowledged(due)])).toEqual([]);
      await store.saveReceipts([receipt(id, 'failed')]);
      expect(await compensations(store, id)).toMatchObject([{ state: 'done', attempts: 1 }]);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
      expect((await store.counts()).compensationsOwed).toBe(0);
    });

    test('a failure that comes after the group has consumed owes nothing', async () => {
      const { store } = opened();
      const id = await compensable(store);
      await store.saveReceipts([receipt(id, 'consumed')]);
      await store.saveReceipts([receipt(id, 'failed')]);
      const both = await compensable(store);
      const late = await store.saveReceipts([receipt(both, 'failed'), receipt(both, 'consumed')]);
      expect(late.reversed).toEqual([]);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
    });

    test('what is claimed is leased, and every claim counts an attempt', async () => {
      const { store } = opened();
      await failed(store);
      const first = await store.claimDueCompensations({ ...CLAIM, leaseMs: 0 });
      expect(first.due[0]?.attempts).toBe(1);
      expect(await claimed(store)).toMatchObject({ attempts: 2 });
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
    });

    test('two claims at the same moment share what is due', async () => {
      const { store } = opened();
      const ids = await Promise.all(Array.from({ length: 6 }, () => failed(store)));
      const claims = await Promise.all(
        [1, 2, 3].map(() => store.claimDueCompensations({ ...CLAIM, limit: 2 })),
      );
      const shared = claims.flatMap(({ due }) => due.map(({ id }) => id));
      expect(new Set(shared).size).toBe(shared.length);
      const rest = (await store.claimDueCompensations(CLAIM)).due.map(({ id }) => id);
      expect([...shared, ...rest].sort()).toEqual([...ids].sort());
    });

    test('groups that are busy keep theirs', async () => {
      const { store } = opened();
      await failed(store);
      const id = await failed(store, { producerGroup: 'orders' });
      const { due } = await store.claimDueCompensations({ ...CLAIM, exceptGroups: ['accounts'] });
      expect(due).toMatchObject([{ id, producerGroup: 'orders' }]);
    });

    test('no answer is kept with its reason, and a call that was not made is no attempt', async () => {
      const { store } = opened();
      const id = await failed(store);
      await store.saveCompensations([unanswered(await claimed(store), { alerted: true })]);
      const again = await claimed(store);
      expect(again).toMatchObject({ attempts: 2, failures: 1, alerted: true });
      const nowhere = unanswered(again, { called: false, lastFailure: 'no URL' });
      await store.saveCompensations([nowhere]);
      expect(await claimed(store)).toMatchObject({ attempts: 2, failures: 2 });
      expect(await compensations(store, id)).toMatchObject([
        { state: 'owed', attempts: 2, lastFailure: 'no URL' },
      ]);
    });

    test('no answer waits for its time', async () => {
      const { store } = opened();
      await failed(store);
      const due = await claimed(store);
      await store.saveCompensations([unanswered(due, { dueAt: (await store.now()) + 60_000 })]);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
    });

    test('no answer says nothing of what another instance has claimed meanwhile', async () => {
      const { store } = opened();
      const id = await failed(store);
      const { due } = await store.claimDueCompensations({ ...CLAIM, leaseMs: 0 });
      const later = await claimed(store);
      await store.saveCompensations([unanswered(due[0]!)]);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
      await store.saveCompensations([acknowledged(later)]);
      await store.saveCompensations([unanswered(later)]);
      expect(await compensations(store, id)).toMatchObject([{ state: 'done', attempts: 2 }]);
    });

    test('what is released is due at once, and its attempt never was', async () => {
      const { store } = opened();
      await failed(store);
      await store.releaseCompensations([await claimed(store)]);
      const again = await claimed(store);
      expect(again.attempts).toBe(1);
      await store.releaseCompensations([{ ...again, attempts: 9 }]);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
      await store.releaseCompensations([]);
    });

    test('a group that consumes after all withdraws what was never called', async () => {
      const { store } = opened();
      const id = await failed(store);
      const saved = await store.saveReceipts([receipt(id, 'consumed')]);
      expect(saved).toEqual({ settled: [id], reversed: [], late: [] });
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
      expect(await compensations(store, id)).toMatchObject([{ state: 'withdrawn', attempts: 0 }]);
      expect((await store.counts()).compensationsOwed).toBe(0);
    });

    test('of one that was called nobody knows whether it was run, and that is told', async () => {
      const { store } = opened();
      const id = await failed(store);
      await store.saveCompensations([unanswered(await claimed(store))]);
      const reversed = [
        {
          id,
          message: 0,
          consumerGroup: 'index',
          producerGroup: 'accounts',
          acknowledged: false,
        },
      ];
      expect(await store.saveReceipts([receipt(id, 'consumed')])).toMatchObject({ reversed });
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
    });

    test('one that is done stays done when the group consumes after all, and that is told', async () => {
      const { store } = opened();
      const id = await failed(store);
      await store.saveCompensations([acknowledged(await claimed(store))]);
      const told = { id, message: 0, consumerGroup: 'index', acknowledged: true };
      const saved = await store.saveReceipts([receipt(id, 'consumed')]);
      expect(saved).toMatchObject({ settled: [id], reversed: [told] });
      const repeated = await store.saveReceipts([receipt(id, 'consumed')]);
      expect(repeated).toMatchObject({ reversed: [told] });
      expect(await compensations(store, id)).toMatchObject([{ state: 'done' }]);
    });

    test('an acknowledgement that comes after the withdrawal is kept, and told', async () => {
      const { store } = opened();
      const id = await failed(store);
      const due = await claimed(store);
      await store.saveReceipts([receipt(id, 'consumed')]);
      const key = { id, message: 0, consumerGroup: 'index' };
      expect(await store.saveCompensations([acknowledged(due)])).toEqual([key]);
      expect(await compensations(store, id)).toMatchObject([{ state: 'done' }]);
    });

    test('an operator ends all that a transaction owes, and nothing else', async () => {
      const { store } = opened();
      const id = await compensable(store, { expects: ['a', 'b', 'c', 'd'] });
      const other = await failed(store);
      const groups = ['a', 'b', 'c', 'd'];
      await store.saveReceipts(
        groups.map((consumerGroup) => receipt(id, 'failed', { consumerGroup })),
      );
      const { due } = await store.claimDueCompensations(CLAIM);
      const of = (consumerGroup: string) =>
        due.find((one) => one.id === id && one.consumerGroup === consumerGroup)!;
      await store.saveCompensations([acknowledged(of('a')), unanswered(of('c'))]);
      await store.saveReceipts([receipt(id, 'consumed', { consumerGroup: 'd' })]);

      const ended = await store.endCompensations({ id, history: HISTORY });
      const keys = [
        { consumerGroup: 'b', message: 0 },
        { consumerGroup: 'c', message: 0 },
      ];
      expect(ended).toEqual(keys.map((key) => ({ id, ...key })));
      const view = await store.view(id);
      expect(view?.compensations.map(({ state }) => state)).toEqual([
        'done',
        'done',
        'done',
        'withdrawn',
      ]);
      expect(view?.compensations[2]).toMatchObject({ attempts: 1, lastFailure: 'HTTP 503' });
      const detail = { ...HISTORY.detail, compensations: keys };
      expect(view?.history).toEqual([{ ...HISTORY, detail }]);
      expect(await compensations(store, other)).toMatchObject([{ state: 'owed' }]);
      expect((await store.counts()).compensationsOwed).toBe(1);
    });

    test('an operator who ends nothing is not on record', async () => {
      const { store } = opened();
      const id = await failed(store);
      const due = await claimed(store);
      await store.saveCompensations([acknowledged(due)]);
      expect(await store.endCompensations({ id, history: HISTORY })).toEqual([]);
      expect(await store.endCompensations({ id: newId(), history: HISTORY })).toEqual([]);
      expect((await store.view(id))?.history).toEqual([]);
    });

    test('what an operator has ended is called no more, whatever a call under way says', async () => {
      const { store } = opened();
      const id = await failed(store);
      const due = await claimed(store);
      await store.endCompensations({ id, history: HISTORY });
      await store.saveCompensations([unanswered(due)]);
      await store.releaseCompensations([due]);
      await store.saveReceipts([receipt(id, 'failed')]);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
      expect(await compensations(store, id)).toMatchObject([{ state: 'done', attempts: 1 }]);
      expect(await store.purgeFinished(PURGE)).toBe(1);
    });

    test('what an operator has ended is told of when the group consumes after all', async () => {
      const { store } = opened();
      const id = await failed(store);
      await store.endCompensations({ id, history: HISTORY });
      const { reversed } = await store.saveReceipts([receipt(id, 'consumed')]);
      expect(reversed).toMatchObject([{ id, consumerGroup: 'index', acknowledged: true }]);
      expect(await compensations(store, id)).toMatchObject([{ state: 'done', attempts: 0 }]);
    });

    test('an operator and an acknowledgement at the same moment end it once', async () => {
      const { store } = opened();
      for (let round = 0; round < 10; round += 1) {
        const id = await failed(store);
        const due = await claimed(store);
        const [ended] = await Promise.all([
          store.endCompensations({ id, history: HISTORY }),
          store.saveCompensations([acknowledged(due)]),
        ]);
        const view = await store.view(id);
        expect(view?.compensations).toMatchObject([{ state: 'done' }]);
        expect(view?.history).toHaveLength(ended.length);
      }
    });

    test('a receipt and an acknowledgement at the same moment tell of each other', async () => {
      const { store } = opened();
      for (let round = 0; round < 10; round += 1) {
        const id = await failed(store);
        const due = await claimed(store);
        const [saved, consumed] = await Promise.all([
          store.saveReceipts([receipt(id, 'consumed')]),
          store.saveCompensations([acknowledged(due)]),
        ]);
        expect(saved.reversed.length + consumed.length).toBeGreaterThan(0);
        expect(await compensations(store, id)).toMatchObject([{ state: 'done' }]);
      }
    });

    test('a group that registers an endpoint has at once what was never called', async () => {
      const { store } = opened();
      const later = { dueAt: (await store.now()) + 60_000, called: false, alerted: true };
      await failed(store);
      await store.saveCompensations([unanswered(await claimed(store), later)]);
      const group = {
        name: 'accounts',
        checkUrls: [],
        compensationUrls: [] as string[],
        checkPolicy: CheckPolicy.parse({}),
        newSecret: 'whsec_1',
        rotate: false,
      };
      await store.saveGroup(group);
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
      await store.saveGroup({ ...group, compensationUrls: ['http://127.0.0.1:1/'] });
      const due = await claimed(store);
      expect(due).toMatchObject({ attempts: 1, failures: 0, alerted: false });
      // Now it is being called, which a registration must not repeat.
      await store.saveGroup({ ...group, compensationUrls: ['http://127.0.0.1:2/'] });
      expect((await store.claimDueCompensations(CLAIM)).due).toEqual([]);
    });

    test('retention leaves alone what is owed, and takes the rest with its compensations', async () => {
      const { store, database } = opened();
      const owed = await failed(store);
      const done = await failed(store);
      const { due } = await store.claimDueCompensations(CLAIM);
      await store.saveCompensations([acknowledged(due.find(({ id }) => id === done)!)]);
      expect(await store.purgeFinished(PURGE)).toBe(1);
      const found = await store.find([owed, done]);
      expect([found.get(owed)?.kind, found.get(done)?.kind]).toEqual(['row', 'tombstone']);
      const rows = () => database.all('select transaction_id from escrow_compensation');
      expect(await rows()).toHaveLength(1);
      const { byState, purged } = await store.counts();
      expect([byState.forwarded, purged.forwarded]).toEqual([1, 1]);
      await store.saveReceipts([receipt(owed, 'consumed')]);
      expect(await store.purgeFinished(PURGE)).toBe(1);
      expect(await rows()).toEqual([]);
    });

    test('what is owed does not stand in the way of what is purged', async () => {
      const { store } = opened();
      const at = Date.now() - 1_000;
      await failed(store, { id: newId(at) });
      const finished = await forwardedTransaction(store, { id: newId(at + 1) });
      expect(await store.purgeFinished({ ...PURGE, limit: 1 })).toBe(1);
      expect((await store.find([finished])).get(finished)?.kind).toBe('tombstone');
    });

    test('what is owed since a purge has looked is seen before it deletes', async () => {
      const { store, database } = opened();
      const id = await failed(store);
      // As its looks at the rows are when the receipt commits after the last of them began.
      const unaware = (text: string) => text.replace(/and not exists \([^)]*\)/, '');
      const early = createStore(
        {
          ...database,
          all: (text, values) => database.all(unaware(text), values),
          transaction: (work) =>
            database.transaction((sql) =>
              work({ ...sql, all: (text, values) => sql.all(unaware(text), values) }),
            ),
        },
        'test',
      );
      expect(await early.purgeFinished(PURGE)).toBe(0);
      expect((await store.find([id])).get(id)?.kind).toBe('row');
      expect(await compensations(store, id)).toMatchObject([{ state: 'owed' }]);
    });
  });

  describe('what became of a transaction in each group', () => {
    test('a group waits, has consumed every message, or has given up on one', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, {
        expects: ['a', 'b', 'c'],
        messages: [message(), message()],
      });
      const of = (consumerGroup: string, number: number, changes: Partial<ConsumerReceipt>) =>
        receipt(id, 'consumed', { consumerGroup, messageId: `${id}-${number}`, ...changes });
      const waiting = { state: 'waiting', attempts: 0 };
      expect((await store.view(id))?.groups).toEqual(
        ['a', 'b', 'c'].map((consumerGroup) => ({ consumerGroup, ...waiting })),
      );
      await store.saveReceipts([
        of('a', 0, { attempts: 2 }),
        of('a', 1, { attempts: 0 }),
        of('b', 1, { attempts: 1 }),
        of('c', 0, {}),
        of('c', 1, { kind: 'failed', attempts: 5, cause: 'no disk' }),
      ]);
      const at = expect.any(Number);
      expect((await store.view(id))?.groups).toEqual([
        { consumerGroup: 'a', state: 'consumed', attempts: 2, at },
        { consumerGroup: 'b', state: 'waiting', attempts: 1 },
        { consumerGroup: 'c', state: 'failed', attempts: 5, cause: 'no disk', at },
      ]);
      await store.saveReceipts([of('c', 1, { attempts: 6 })]);
      expect((await store.view(id))?.groups[2]).toEqual({
        consumerGroup: 'c',
        state: 'consumed',
        attempts: 6,
        at,
      });
    });

    test('what has not settled is found by its id, with whom it waits for', async () => {
      const { store } = opened();
      const open = await forwardedTransaction(store, { expects: ['a', 'b'] });
      const settled = await forwardedTransaction(store);
      await store.saveReceipts([receipt(open, 'failed', { consumerGroup: 'b' })]);
      expect([...(await store.unsettled([open, settled]))]).toEqual([
        [
          open,
          {
            id: open,
            producerGroup: 'accounts',
            state: 'forwarded',
            waitingFor: ['a'],
            failed: ['b'],
          },
        ],
      ]);
      expect(await store.unsettled([])).toEqual(new Map());
    });
  });
}

import type { ConsumerReceipt } from '@escrowmq/protocol';
import { maySettle, mayStillSettle } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import {
  type Closable,
  closeUnsettled,
  type OverdueSettlement,
} from '../../broker/src/domain/closing.js';
import type { LateReceipt } from '../../broker/src/domain/late-receipts.js';
import type { Store } from '../../broker/src/domain/ports.js';
import {
  columnOf,
  forwardedTransaction,
  message,
  messages,
  newId,
  newTransaction,
  type OpenStore,
  prepare,
  rowOf,
  type TransactionChanges,
} from '../support/store-fixtures.js';
import { STATE_CASE_NAMES, STATE_CASES } from './state-cases.js';

const ALL = { olderThanMs: 0, limit: 1_000 };
const AN_HOUR = { olderThanMs: 3_600_000, limit: 1_000 };
const WHO = { operator: 'ann', reason: 'stock is shut down' };
const BY = { by: 'operator ann', reason: WHO.reason };
const KEY = 'order:7';

const receipt = (
  id: string,
  kind: ConsumerReceipt['kind'],
  { consumerGroup = 'stock', number = 0 } = {},
): ConsumerReceipt => ({ messageId: `${id}-${number}`, consumerGroup, kind });

/** U05: what is kept until a group says its word or an operator closes it, and what is left of it. */
export function unsettledContract(opened: () => OpenStore): void {
  const waiting = (changes: TransactionChanges = {}) =>
    forwardedTransaction(opened().store, { expects: ['stock'], businessKeys: [KEY], ...changes });
  const onKey = async (store: Store, key = KEY) => (await store.unsettledOn([key])).get(key) ?? [];
  const isThere = async (id: string) => (await opened().store.find([id])).get(id)?.kind === 'row';
  const overdueIn = async (search = ALL): Promise<OverdueSettlement[]> => {
    const told: OverdueSettlement[] = [];
    const count = await opened().store.tellOverdue(search, (overdue) => told.push(...overdue));
    expect(count).toBe(told.length);
    return told;
  };
  /** As if it had been closed that much earlier. */
  const age = async (id: string, byMs: number) => {
    const { database } = opened();
    const key = Buffer.from(id.replaceAll('-', ''), 'hex');
    await database.run(
      'update escrow_unsettled set closed_at = closed_at - ? where transaction_id = ?',
      [byMs, key],
    );
  };

  describe('U05: retention', () => {
    test('nothing goes while an expected group owes a word', async () => {
      const { store } = opened();
      const id = await waiting({ messages: messages(2), expects: ['stock', 'mail'] });
      const words = [
        receipt(id, 'consumed'),
        receipt(id, 'consumed', { number: 1 }),
        receipt(id, 'consumed', { consumerGroup: 'mail' }),
      ];
      for (const word of words) {
        await store.saveReceipts([word]);
        expect(await store.purgeFinished(ALL)).toBe(0);
        expect(await onKey(store)).toMatchObject([{ id }]);
      }
      await store.saveReceipts([receipt(id, 'consumed', { consumerGroup: 'mail', number: 1 })]);
      expect(await store.purgeFinished(ALL)).toBe(1);
      expect(await onKey(store)).toEqual([]);
    });

    test('what a message names is waited for, and nothing else', async () => {
      const { store } = opened();
      const id = await waiting({
        expects: [],
        messages: [message({ expects: ['stock'] }), message()],
      });
      expect(await store.purgeFinished(ALL)).toBe(0);
      await store.saveReceipts([receipt(id, 'consumed')]);
      expect(await store.purgeFinished(ALL)).toBe(1);
    });

    test('a group that gave up has said its word; its keys never read as settled', async () => {
      const { store } = opened();
      const id = await waiting();
      await store.saveReceipts([receipt(id, 'failed')]);
      expect(await store.purgeFinished(ALL)).toBe(1);
      const [left, ...others] = await onKey(store);
      expect(left).toEqual({
        id,
        producerGroup: 'accounts',
        state: 'forwarded',
        waitingFor: [],
        failed: ['stock'],
        purged: true,
      });
      expect(others).toEqual([]);
      expect(maySettle(left!)).toBe(false);
      expect((await store.unsettledOn([KEY], 'accounts')).get(KEY)).toEqual([left]);
      expect((await store.unsettledOn([KEY], 'orders')).get(KEY)).toEqual([]);
    });

    test('a compensation that is owed keeps it, as ever', async () => {
      const { store } = opened();
      const id = await waiting({ messages: [message({ compensate: true })] });
      await store.saveReceipts([receipt(id, 'failed')]);
      expect(await store.purgeFinished(ALL)).toBe(0);
      await store.endCompensations({ id, history: { at: 1, event: 'resolve', detail: {} } });
      expect(await store.purgeFinished(ALL)).toBe(1);
      expect(await onKey(store)).toMatchObject([{ id, failed: ['stock'], purged: true }]);
    });

    test('with the tombstone goes what is left, and no key that was used again', async () => {
      const { store, database } = opened();
      const id = await waiting();
      await store.saveReceipts([receipt(id, 'failed')]);
      await store.purgeFinished(ALL);
      const later = await waiting();
      expect((await onKey(store)).map((one) => one.id)).toEqual([id, later]);
      expect(await store.purgeTombstones(ALL)).toBe(1);
      expect((await onKey(store)).map((one) => one.id)).toEqual([later]);
      expect(await database.all('select transaction_id from escrow_unsettled')).toEqual([]);
    });

    test('what is over is found behind more that is kept than is looked at together', async () => {
      const { store, database } = opened();
      const now = await store.now();
      const kept = Array.from({ length: 1_100 }, (_, place) =>
        newTransaction({ id: newId(now - 60_000 + place), expects: ['stock'] }),
      );
      for (let start = 0; start < kept.length; start += 500) {
        await store.insert(kept.slice(start, start + 500));
      }
      await database.run(
        `update escrow_transaction set state = 'forwarded', decision = 'commit', pending = 0, finished_at = ?`,
        [now - 1_000],
      );
      const over = await forwardedTransaction(store, { id: newId(now - 50_000) });
      expect(await store.purgeFinished(ALL)).toBe(1);
      expect(await isThere(over)).toBe(false);
      expect((await store.counts()).byState.forwarded).toBe(kept.length);
    });
  });

  describe('U05: an operator closes what nobody will consume any more', () => {
    test.each(STATE_CASE_NAMES)('what is %s: the store does what the rule says', async (name) => {
      const { store } = opened();
      const { id } = await STATE_CASES[name](store);
      const { settled } = (await store.view(id))!;
      const { state } = (await rowOf(store, id)).state;
      const ruling = closeUnsettled({ state, settled, compensationsOwed: 0 });
      expect(ruling.kind).toBe('refuse');
      const before = await store.view(id);
      const why = ruling.kind === 'refuse' ? ruling.why : undefined;
      expect(await store.closeUnsettled({ id, ...WHO })).toEqual({ kind: 'refused', why });
      expect(await store.view(id)).toEqual(before);
    });

    test('the rule: closed already, settled, open, owing, or else closed', () => {
      const closed = { at: 1, ...BY };
      const row: Closable = { state: 'forwarded', settled: false, compensationsOwed: 0 };
      expect(closeUnsettled(row)).toEqual({ kind: 'close' });
      expect(closeUnsettled({ ...row, closed })).toEqual({ kind: 'keep', closed });
      expect(closeUnsettled({ ...row, closed, compensationsOwed: 1 }).kind).toBe('keep');
      expect(closeUnsettled({ ...row, settled: true })).toMatchObject({ why: { kind: 'settled' } });
      expect(closeUnsettled({ ...row, compensationsOwed: 2 })).toMatchObject({
        why: { kind: 'owes', compensations: 2 },
      });
    });

    test('its keys answer as closed, never as settled, and nobody waits any more', async () => {
      const { store } = opened();
      const id = await waiting({ expects: ['stock', 'mail'] });
      await store.saveReceipts([receipt(id, 'consumed', { consumerGroup: 'mail' })]);
      // Words of the same millisecond count as later ones.
      const closed = { at: expect.any(Number), ...BY };
      while ((await store.now()) <= ((await store.view(id))?.receipts[0]?.at ?? 0));
      expect(await store.closeUnsettled({ id, ...WHO })).toEqual({ kind: 'closed', closed });
      const [one] = await onKey(store);
      expect(one).toMatchObject({ id, waitingFor: [], failed: ['stock'], closed });
      expect(maySettle(one!)).toBe(false);
      expect((await store.unsettled([id])).get(id)).toEqual(one);
      const view = (await store.view(id))!;
      expect(view).toMatchObject({ state: 'forwarded', settled: false, closed });
      expect(view.groups).toMatchObject([
        { consumerGroup: 'stock', state: 'failed', cause: `closed by ${BY.by}: ${BY.reason}` },
        { consumerGroup: 'mail', state: 'consumed' },
      ]);
      expect(mayStillSettle(view)).toBe(false);
      expect(view.history).toMatchObject([
        { event: 'resolve', detail: { action: 'close', ...WHO } },
      ]);
      const { transactions } = await store.search({ state: 'forwarded', limit: 50 });
      expect(transactions).toMatchObject([{ id, settled: false, closed }]);
    });

    test('a repeat, by anybody, changes nothing and tells what is on record', async () => {
      const { store } = opened();
      const id = await waiting();
      const first = await store.closeUnsettled({ id, ...WHO });
      const before = await store.view(id);
      expect(await store.closeUnsettled({ id, operator: 'bob', reason: 'too' })).toEqual(first);
      expect(await store.view(id)).toEqual(before);
    });

    test('of two at the same moment one is on record, for both', async () => {
      const { store } = opened();
      const id = await waiting();
      const both = await Promise.all(
        ['ann', 'bob'].map((operator) => store.closeUnsettled({ id, operator, reason: 'x' })),
      );
      expect(both[0]).toEqual(both[1]);
      expect((await store.view(id))?.history).toHaveLength(1);
    });

    test('closed or settled, never both, when the last receipt comes at that moment', async () => {
      const { store } = opened();
      for (let round = 0; round < 10; round += 1) {
        const id = await waiting({ businessKeys: [] });
        const [closing, saved] = await Promise.all([
          store.closeUnsettled({ id, ...WHO }),
          store.saveReceipts([receipt(id, 'consumed')]),
        ]);
        const view = (await store.view(id))!;
        expect(view.settled).toBe(view.closed === undefined);
        expect(closing.kind).toBe(view.settled ? 'refused' : 'closed');
        expect(saved.settled).toEqual(view.settled ? [id] : []);
      }
    });

    test('a compensation that is owed refuses it, and one that is done does not', async () => {
      const { store } = opened();
      const id = await waiting({ messages: [message({ compensate: true })] });
      await store.saveReceipts([receipt(id, 'failed')]);
      const why = { kind: 'owes', compensations: 1 };
      expect(await store.closeUnsettled({ id, ...WHO })).toEqual({ kind: 'refused', why });
      await store.endCompensations({ id, history: { at: 1, event: 'resolve', detail: {} } });
      expect(await store.closeUnsettled({ id, ...WHO })).toMatchObject({ kind: 'closed' });
    });

    test('retention takes it when it was closed for that long, and its keys stay closed', async () => {
      const { store } = opened();
      const id = await waiting();
      await store.closeUnsettled({ id, ...WHO });
      await opened().database.run('update escrow_transaction set finished_at = 1');
      // Long enough since it was forwarded, and not since it was closed.
      const halfMinute = { olderThanMs: 30_000, limit: 10 };
      expect(await store.purgeFinished(halfMinute)).toBe(0);
      await age(id, 40_000);
      expect(await store.purgeFinished(halfMinute)).toBe(1);
      expect((await store.find([id])).get(id)).toMatchObject({
        kind: 'tombstone',
        decision: { decision: 'commit' },
      });
      const closed = { at: expect.any(Number), ...BY };
      expect(await onKey(store)).toEqual([
        {
          ...{ id, producerGroup: 'accounts', state: 'forwarded', waitingFor: [] },
          ...{ failed: ['stock'], closed, purged: true },
        },
      ]);
      expect(await store.closeUnsettled({ id, operator: 'bob', reason: 'too' })).toEqual({
        kind: 'closed',
        closed,
        purged: true,
      });
      expect((await store.counts()).purged).toEqual({ forwarded: 1, rolledBack: 0 });
    });

    test('what is gone without having been closed can not be closed', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store);
      await store.purgeFinished(ALL);
      expect(await store.closeUnsettled({ id, ...WHO })).toEqual({ kind: 'purged' });
      expect(await store.closeUnsettled({ id: newId(), ...WHO })).toEqual({ kind: 'unknown' });
    });

    test('many that are closed on a key do not hide one that may settle', async () => {
      const { store, database } = opened();
      const at = (await store.now()) - 10_000;
      const many = Array.from({ length: 220 }, () =>
        newTransaction({ id: newId(at), businessKeys: [KEY], expects: ['stock'] }),
      );
      await store.insert(many);
      await database.run(
        `update escrow_transaction set state = 'forwarded', decision = 'commit', pending = 0, finished_at = ?`,
        [at],
      );
      for (const { id } of many) await store.closeUnsettled({ id, ...WHO });
      const open = await prepare(store, { businessKeys: [KEY] });
      expect((await onKey(store)).map(({ id }) => id)).toContain(open);
    });
  });

  describe('U05: words that come too late', () => {
    const late = async (...receipts: ConsumerReceipt[]): Promise<LateReceipt[]> =>
      (await opened().store.saveReceipts(receipts)).late;

    test('of what is closed are recorded, told once, and it stays closed', async () => {
      const { store } = opened();
      const id = await waiting();
      await store.closeUnsettled({ id, ...WHO });
      const about = { why: 'closed', id, consumerGroup: 'stock' };
      expect(await late(receipt(id, 'failed'))).toEqual([{ ...about, kind: 'failed' }]);
      expect(await late(receipt(id, 'failed'))).toEqual([]);
      expect(await late(receipt(id, 'consumed'))).toEqual([{ ...about, kind: 'consumed' }]);
      expect(await late(receipt(id, 'consumed'), receipt(id, 'failed'))).toEqual([]);
      const view = (await store.view(id))!;
      expect(view).toMatchObject({ settled: false, closed: BY });
      expect(view.receipts).toMatchObject([{ kind: 'consumed' }]);
      expect(view.groups).toMatchObject([{ consumerGroup: 'stock', state: 'failed' }]);
      expect(await onKey(store)).toMatchObject([{ id, failed: ['stock'], closed: BY }]);
    });

    test('a group that gives up on what is closed is compensated as ever', async () => {
      const { store } = opened();
      const id = await waiting({ messages: [message({ compensate: true })] });
      await store.closeUnsettled({ id, ...WHO });
      await store.saveReceipts([receipt(id, 'failed')]);
      expect((await store.view(id))?.compensations).toMatchObject([{ state: 'owed' }]);
      await age(id, 1_000);
      expect(await store.purgeFinished(ALL)).toBe(0);
    });

    test('of what is purged are told by what it was', async () => {
      const { store } = opened();
      const settled = await waiting();
      await store.saveReceipts([receipt(settled, 'consumed')]);
      const failed = await waiting();
      await store.saveReceipts([receipt(failed, 'failed')]);
      const closed = await waiting();
      await store.closeUnsettled({ id: closed, ...WHO });
      await age(closed, 1_000);
      expect(await store.purgeFinished(ALL)).toBe(3);
      const unknown = newId();
      const told = async (id: string) => {
        const both = await late(receipt(id, 'consumed'), receipt(id, 'failed'));
        return both.map(({ why, kind }) => [why, kind]);
      };
      expect(await told(settled)).toEqual([
        ['purged', 'consumed'],
        ['purged', 'failed'],
      ]);
      // It had said that it failed, so only the other word is new.
      expect(await told(failed)).toEqual([['unsettled', 'consumed']]);
      expect(await told(closed)).toEqual([
        ['unsettled', 'consumed'],
        ['unsettled', 'failed'],
      ]);
      expect(await told(unknown)).toEqual([
        ['unknown', 'consumed'],
        ['unknown', 'failed'],
      ]);
    });

    test('of what waits for nobody are no news', async () => {
      const { store } = opened();
      const plain = await forwardedTransaction(store);
      const prepared = await prepare(store, { expects: ['stock'] });
      expect(await late(receipt(plain, 'failed'), receipt(prepared, 'failed'))).toEqual([]);
    });
  });

  describe('U05: what is overdue', () => {
    test('each is told once, with the groups that owe a word', async () => {
      const { store } = opened();
      const id = await waiting({ expects: ['stock', 'mail'] });
      await store.saveReceipts([receipt(id, 'failed')]);
      expect(await overdueIn(AN_HOUR)).toEqual([]);
      const topics = ['user'];
      expect(await overdueIn()).toEqual([
        { id, producerGroup: 'accounts', topics, waitingFor: ['mail'] },
      ]);
      expect(await overdueIn()).toEqual([]);
      expect(await isThere(id)).toBe(true);
      expect(await onKey(store)).toMatchObject([{ id, waitingFor: ['mail'] }]);
      // It may settle after all, and then goes like any other.
      await store.saveReceipts([
        receipt(id, 'consumed'),
        receipt(id, 'consumed', { consumerGroup: 'mail' }),
      ]);
      expect(await store.purgeFinished(ALL)).toBe(1);
      expect(await onKey(store)).toEqual([]);
      expect(await opened().database.all('select * from escrow_unsettled')).toEqual([]);
    });

    test('nobody is told of what owes no word: settled, given up, closed, or not forwarded', async () => {
      const { store } = opened();
      for (const name of STATE_CASE_NAMES) await STATE_CASES[name](store);
      const failed = await waiting();
      await store.saveReceipts([receipt(failed, 'failed')]);
      const closed = await waiting();
      await store.closeUnsettled({ id: closed, ...WHO });
      await prepare(store, { expects: ['stock'] });
      expect(await overdueIn()).toEqual([]);
    });

    test('batch after batch tells all of them, two at the same moment each once', async () => {
      const ids = await Promise.all([1, 2, 3, 4, 5].map(() => waiting({ businessKeys: [] })));
      const two = { olderThanMs: 0, limit: 2 };
      const told: string[] = [];
      for (let round = 0; round < 6; round += 1) {
        const both = await Promise.all([overdueIn(two), overdueIn(two)]);
        told.push(...both.flat().map(({ id }) => id));
      }
      expect(told.sort()).toEqual([...ids].sort());
    });

    test('a crash before it is durable tells it once more', async () => {
      const { store } = opened();
      const id = await waiting();
      const crash = store.tellOverdue(ALL, () => {
        throw new Error('the process ends here');
      });
      await expect(crash).rejects.toThrow('the process ends here');
      expect((await overdueIn()).map((one) => one.id)).toEqual([id]);
      expect(await columnOf(opened(), id, 'state')).toBe('forwarded');
    });
  });
}

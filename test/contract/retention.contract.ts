import { setImmediate as nextTurn } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { Store } from '../../broker/src/domain/ports.js';
import {
  decide,
  emptyStore,
  forwardedTransaction,
  newId,
  newTransaction,
  type OpenStore,
  prepare,
} from '../support/store-fixtures.js';
import { STATE_CASE_NAMES, STATE_CASES, type StateCase } from './state-cases.js';

const ALL = { olderThanMs: 0, limit: 1_000 };
const AN_HOUR = { olderThanMs: 3_600_000, limit: 1_000 };

/** Accepted so far, as the counts have it: everything open, finished or purged. */
async function accounted(store: Store): Promise<number> {
  const { byState, purged } = await store.counts();
  const rows = Object.values(byState).reduce((sum, count) => sum + count, 0);
  return rows + purged.forwarded + purged.rolledBack;
}

const isOpen = (state: StateCase) => state !== 'forwarded' && state !== 'rolledBack';

export function retentionContract(opened: () => OpenStore): void {
  describe('retention', () => {
    test('nothing open is ever purged, and no purge loses count (F76)', async () => {
      const { store } = opened();
      const purge = fc.record({
        limit: fc.integer({ min: 1, max: 4 }),
        olderThanMs: fc.constantFrom(0, 3_600_000),
      });
      const tables = fc.array(fc.constantFrom(...STATE_CASE_NAMES), { maxLength: 8 });
      const property = fc.asyncProperty(
        tables,
        fc.array(purge, { maxLength: 4 }),
        async (table, purges) => {
          await emptyStore(opened());
          const rows: { id: string; state: StateCase }[] = [];
          for (const state of table) {
            rows.push({ id: (await STATE_CASES[state](store)).id, state });
          }
          const before = await store.find(rows.map(({ id }) => id));
          for (const step of purges) {
            const open = (await store.counts()).byState;
            const finished = open.forwarded + open.rolledBack;
            const expected = step.olderThanMs > 0 ? 0 : Math.min(finished, step.limit);
            expect(await store.purgeFinished(step)).toBe(expected);
            expect(await accounted(store)).toBe(rows.length);
          }
          const after = await store.find(rows.map(({ id }) => id));
          for (const { id, state } of rows) {
            const found = after.get(id);
            if (isOpen(state) || found?.kind === 'row') expect(found).toEqual(before.get(id));
            else
              expect(found).toMatchObject({
                kind: 'tombstone',
                decision: before.get(id)?.decision,
              });
          }
        },
      );
      await fc.assert(property, { numRuns: 12 });
    });

    test('what is finished stays for its time and goes oldest id first', async () => {
      const { store } = opened();
      const ids = [await forwardedTransaction(store), await forwardedTransaction(store)].sort();
      expect(await store.purgeFinished(AN_HOUR)).toBe(0);
      expect(await store.purgeFinished({ ...ALL, limit: 1 })).toBe(1);
      const found = await store.find(ids);
      expect(ids.map((id) => found.get(id)?.kind)).toEqual(['tombstone', 'row']);
      expect(await store.purgeFinished(ALL)).toBe(1);
      expect(await store.purgeFinished(ALL)).toBe(0);
      expect((await store.counts()).purged).toEqual({ forwarded: 2, rolledBack: 0 });
    });

    test('everything that hangs on a transaction goes with it', async () => {
      const { store, database } = opened();
      const id = await forwardedTransaction(store, {
        businessKeys: ['order:1'],
        expects: ['index'],
      });
      await store.saveReceipts([
        { messageId: `${id}-0`, consumerGroup: 'index', kind: 'consumed' },
      ]);
      await store.appendHistory([{ id, event: { at: 1, event: 'check', detail: {} } }]);
      await store.purgeFinished(ALL);
      expect(await store.view(id)).toBeUndefined();
      for (const table of ['business_key', 'receipt', 'history', 'unsettled', 'transaction']) {
        expect([table, await database.all(`select * from escrow_${table}`)]).toEqual([table, []]);
      }
    });

    test('a verdict on what is purged is answered by its tombstone (F75)', async () => {
      const { store } = opened();
      const id = await prepare(store);
      const decidedBy = { by: 'operator ann', reason: 'the customer called' };
      await store.decide([{ id, decision: 'rollback', decidedBy }], 0);
      await store.purgeFinished(ALL);
      for (const decision of ['commit', 'rollback'] as const) {
        const [result] = await store.decide([{ id, decision, decidedBy: { by: 'producer' } }], 0);
        if (result?.kind !== 'decided') throw new Error(`the verdict is ${result?.kind}`);
        expect(result.found).toMatchObject({
          kind: 'tombstone',
          decision: { decision: 'rollback', ...decidedBy },
        });
      }
    });

    test('receipts and checks of what is purged bring nothing back', async () => {
      const { store } = opened();
      const id = await forwardedTransaction(store, { expects: ['index'] });
      const receipt = { messageId: `${id}-0`, consumerGroup: 'index', kind: 'consumed' } as const;
      await store.saveReceipts([receipt]);
      await store.purgeFinished(ALL);
      expect(await store.saveReceipts([receipt])).toMatchObject({ settled: [], reversed: [] });
      const from = { state: 'prepared', checks: 0, unanswered: 0, dueAt: 0 } as const;
      await store.saveChecks([{ id, from, to: from, alerted: false, history: [] }]);
      expect((await store.find([id])).get(id)?.kind).toBe('tombstone');
    });

    test('an id that came to life again is purged beside its own tombstone', async () => {
      const { store } = opened();
      const transaction = newTransaction();
      for (const decision of ['commit', 'rollback'] as const) {
        // Not old enough to be looked for among the tombstones, as after a jump of the clock.
        await store.insert([transaction]);
        await decide(store, transaction.id, decision);
        if (decision === 'commit') {
          const to = { state: 'forwarded', forwardedAt: 0 } as const;
          await store.saveForwards([{ id: transaction.id, done: 1, unrouted: 0, to, history: [] }]);
        }
        expect(await store.purgeFinished(ALL)).toBe(1);
      }
      expect((await store.find([transaction.id])).get(transaction.id)).toMatchObject({
        kind: 'tombstone',
        decision: { decision: 'commit' },
      });
      expect((await store.counts()).purged).toEqual({ forwarded: 1, rolledBack: 1 });
    });

    test('tombstones stay for their time, then nobody knows the id any more', async () => {
      const { store } = opened();
      const ids = [await forwardedTransaction(store), await forwardedTransaction(store)];
      await store.purgeFinished(ALL);
      expect(await store.purgeTombstones(AN_HOUR)).toBe(0);
      expect((await store.find(ids)).size).toBe(2);
      expect(await store.purgeTombstones({ ...ALL, limit: 1 })).toBe(1);
      expect((await store.find(ids)).size).toBe(1);
      expect(await store.purgeTombstones(ALL)).toBe(1);
      expect(await store.purgeTombstones(ALL)).toBe(0);
      expect(await accounted(store)).toBe(2);
    });

    test('an id that runs ahead of the clock stays until its own time is over', async () => {
      const { store } = opened();
      const now = await store.now();
      const ahead = await forwardedTransaction(store, { id: newId(now + 600_000) });
      const onTime = await forwardedTransaction(store, { id: newId(now) });
      expect(await store.purgeFinished(ALL)).toBe(1);
      const found = await store.find([ahead, onTime]);
      expect([ahead, onTime].map((id) => found.get(id)?.kind)).toEqual(['row', 'tombstone']);
    });

    test('what is over is found among more rows that are open than are looked at together', async () => {
      const { store } = opened();
      const now = await store.now();
      const idAt = (place: number) => newId(now - 60_000 + place);
      const count = 1_100;
      const open = Array.from({ length: count }, (_, place) =>
        newTransaction({ id: idAt(place + 1) }),
      );
      for (let start = 0; start < count; start += 500) {
        await store.insert(open.slice(start, start + 500));
      }
      const [oldest, newest] = [
        await forwardedTransaction(store, { id: idAt(0) }),
        await forwardedTransaction(store, { id: idAt(count + 1) }),
      ];
      const one = { olderThanMs: 0, limit: 1 };
      const isThere = async (id: string) => (await store.find([id])).get(id)?.kind === 'row';
      expect(await store.purgeFinished(one)).toBe(1);
      expect([await isThere(oldest), await isThere(newest)]).toEqual([false, true]);
      // The last of those that the next search looks at first.
      const { id: last } = open[999]!;
      await decide(store, last, 'rollback');
      expect(await store.purgeFinished(one)).toBe(1);
      expect([await isThere(last), await isThere(newest)]).toEqual([false, true]);
      expect(await store.purgeFinished(one)).toBe(1);
      expect(await isThere(newest)).toBe(false);
      expect(await store.purgeFinished(one)).toBe(0);
      // Behind where the last batch ended: found once the search has come round.
      await decide(store, open[7]!.id, 'rollback');
      expect(await store.purgeFinished(one)).toBe(1);
      expect(await isThere(open[7]!.id)).toBe(false);
    });

    test('whoever purges batch after batch lets everybody else have a turn', async () => {
      const { store } = opened();
      const batch = Array.from({ length: 20 }, () => newTransaction());
      await store.insert(batch);
      for (const { id } of batch) await decide(store, id, 'rollback');
      let turns = 0;
      let purging = true;
      const others = (async () => {
        while (purging) {
          await nextTurn();
          turns += 1;
        }
      })();
      while ((await store.purgeFinished({ olderThanMs: 0, limit: 1 })) > 0);
      while ((await store.purgeTombstones({ olderThanMs: 0, limit: 1 })) > 0);
      purging = false;
      await others;
      expect(turns).toBeGreaterThanOrEqual(2 * batch.length);
    });

    test('the counts add up at any moment while others purge', async () => {
      const { store } = opened();
      const batch = Array.from({ length: 100 }, () => newTransaction());
      await store.insert(batch);
      const decidedBy = { by: 'producer' };
      const verdicts = batch.map(({ id }) => ({ id, decision: 'rollback', decidedBy }) as const);
      await store.decide(verdicts, 0);
      let purging = true;
      const purges = (async () => {
        while ((await store.purgeFinished({ olderThanMs: 0, limit: 4 })) > 0);
        purging = false;
      })();
      const counted = new Set<number>();
      while (purging) {
        counted.add(await accounted(store));
        // SQLite answers within one turn of the event loop, and the purge takes turns with others.
        await nextTurn();
      }
      await purges;
      // Looked at in the end: a purge left behind would fail on a store that is closed.
      expect([...counted]).toEqual([100]);
      expect((await store.counts()).purged).toEqual({ forwarded: 0, rolledBack: 100 });
    });

    test('the counts know every state and the oldest open transaction', async () => {
      const { store } = opened();
      expect(await store.counts()).toEqual({
        byState: { prepared: 0, committed: 0, forwarded: 0, rolledBack: 0, parked: 0 },
        purged: { forwarded: 0, rolledBack: 0 },
        compensationsOwed: 0,
      });
      await forwardedTransaction(store, { preparedAt: 1_000 });
      // Ids rise with time, as where they are made.
      for (const preparedAt of [2_000, 3_000]) {
        await prepare(store, { preparedAt, id: newId(Date.now() - 10_000 + preparedAt) });
      }
      for (const state of STATE_CASE_NAMES) await STATE_CASES[state](store);
      expect(await store.counts()).toEqual({
        byState: { prepared: 3, committed: 2, forwarded: 2, rolledBack: 1, parked: 2 },
        purged: { forwarded: 0, rolledBack: 0 },
        oldestOpenAt: 2_000,
        compensationsOwed: 0,
      });
    });
  });
}

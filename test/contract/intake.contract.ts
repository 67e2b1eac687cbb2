import { describe, expect, test } from '@jest/globals';
import type { Verdict } from '../../broker/src/domain/ports.js';
import { byProducer, type Decision } from '../../broker/src/domain/transaction.js';
import { NEVER } from '../../broker/src/store/sql.js';
import {
  columnOf,
  decide,
  forwardedTransaction,
  newId,
  newTransaction,
  type OpenStore,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';

const OLDER_THAN_NOTHING = { olderThanMs: 0, limit: 1_000 };

export function intakeContract(opened: () => OpenStore): void {
  describe('prepares', () => {
    test('prepares and sends of one batch each begin in their own state', async () => {
      const { store } = opened();
      const kinds = [
        { op: 'prepare', checkAfterMs: 60_000 },
        { op: 'send', leaseMs: 30_000 },
        { op: 'prepare', checkAfterMs: 90_000 },
      ] as const;
      const batch = kinds.map((kind) => newTransaction({ kind }));
      const before = await store.now();
      await store.insert(batch);
      const elapsedMs = (await store.now()) - before;
      const rows = await Promise.all(batch.map(({ id }) => rowOf(store, id)));
      const committed = { decision: 'commit', by: 'producer', at: expect.any(Number) };
      expect(rows.map(({ decision }) => decision)).toEqual([undefined, committed, undefined]);
      const states = rows.map(({ state }) => state);
      expect(states.map(({ state }) => state)).toEqual(['prepared', 'committed', 'prepared']);
      states.forEach((state, index) => {
        const dueInMs = 'dueAt' in state ? state.dueAt - before : Number.NaN;
        const wantedMs = [60_000, 30_000, 90_000][index] ?? 0;
        expect(dueInMs - wantedMs).toBeGreaterThanOrEqual(0);
        expect(dueInMs - wantedMs).toBeLessThanOrEqual(elapsedMs);
      });
      const decidedAt = rows[1]?.decision?.at ?? 0;
      expect(decidedAt - before).toBeGreaterThanOrEqual(0);
      expect(decidedAt - before).toBeLessThanOrEqual(elapsedMs);
    });

    test('a prepare is repeated by the same content and refused to other content (F04, F05)', async () => {
      const { store } = opened();
      const transaction = newTransaction();
      const other = newTransaction({ id: transaction.id, producerGroup: 'orders' });
      expect(await store.insert([transaction])).toEqual([{ kind: 'created' }]);
      const found = await rowOf(store, transaction.id);
      expect(await store.insert([transaction])).toEqual([{ kind: 'repeated', found }]);
      expect(await store.insert([other])).toEqual([{ kind: 'different' }]);
      expect(await rowOf(store, transaction.id)).toEqual(found);
    });

    test('a first check is due after its delay, by the clock of the store', async () => {
      const { store } = opened();
      const kind = { op: 'prepare', checkAfterMs: 5_000 } as const;
      const before = await store.now();
      const { state } = await rowOf(store, await prepare(store, { kind, preparedAt: 17 }));
      const after = await store.now();
      if (state.state !== 'prepared') throw new Error(state.state);
      expect(state.dueAt).toBeGreaterThanOrEqual(before + 5_000);
      expect(state.dueAt).toBeLessThanOrEqual(after + 5_000);
    });

    test('a send is committed by the producer at once, and leased', async () => {
      const { store } = opened();
      const before = await store.now();
      const kind = { op: 'send', leaseMs: 5_000 } as const;
      const { state, decision } = await rowOf(store, await prepare(store, { kind }));
      if (state.state !== 'committed') throw new Error(state.state);
      expect(state).toMatchObject({ pending: 1, attempts: 0 });
      expect(state.dueAt).toBeGreaterThanOrEqual(before + 5_000);
      expect(decision).toEqual({ decision: 'commit', by: 'producer', at: state.dueAt - 5_000 });
    });

    for (const same of [true, false]) {
      const other = same ? 'the same' : 'other';
      test(`one duplicate of ${other} content among a hundred leaves the rest alone`, async () => {
        const { store } = opened();
        const batch = Array.from({ length: 100 }, (_, number) =>
          newTransaction({ businessKeys: [`order:${number}`] }),
        );
        const taken = batch[41] ?? newTransaction();
        await store.insert([
          same ? taken : newTransaction({ id: taken.id, businessKeys: ['order:first'] }),
        ]);

        const results = await store.insert(batch);
        const found = await rowOf(store, taken.id);
        expect(results.map((result, index) => [index, result.kind])).toEqual(
          batch.map((_, index) => {
            if (index !== 41) return [index, 'created'];
            return [index, same ? 'repeated' : 'different'];
          }),
        );
        if (same) expect(results[41]).toEqual({ kind: 'repeated', found });
        const keys = batch.flatMap(({ businessKeys }) => businessKeys);
        const unsettled = await store.unsettledOn([...keys, 'order:first']);
        const ids = [...unsettled].map(([, open]) => open.map(({ id }) => id));
        const own = batch.map(({ id }, index) => (index === 41 && !same ? [] : [id]));
        expect(ids).toEqual([...own, same ? [] : [taken.id]]);
      });
    }

    test('a duplicate of what is purged is answered by its tombstone and makes no row (F04)', async () => {
      const { store } = opened();
      const id = newId(Date.now() - 3 * 60 * 60 * 1000);
      const transaction = newTransaction({ id, businessKeys: ['order:1'], mayBePurged: true });
      await store.insert([transaction]);
      await decide(store, id, 'rollback');
      expect(await store.purgeFinished(OLDER_THAN_NOTHING)).toBe(1);

      const found = (await store.find([id])).get(id);
      expect(found?.kind).toBe('tombstone');
      const fresh = newTransaction({ mayBePurged: true });
      const other = newTransaction({ id, producerGroup: 'orders', mayBePurged: true });
      expect(await store.insert([fresh, transaction])).toEqual([
        { kind: 'created' },
        { kind: 'repeated', found },
      ]);
      expect(await store.insert([other])).toEqual([{ kind: 'different' }]);
      expect((await store.find([id])).get(id)).toEqual(found);
      expect((await store.unsettledOn(['order:1'])).get('order:1')).toEqual([]);
    });

    test('of concurrent prepares under one id exactly one makes it', async () => {
      const { store } = opened();
      const transaction = newTransaction({ businessKeys: ['order:1'] });
      const tries = Array.from({ length: 8 }, () => store.insert([newTransaction(), transaction]));
      const kinds = (await Promise.all(tries)).map(([first, second]) => {
        expect(first).toEqual({ kind: 'created' });
        return second?.kind;
      });
      expect(kinds.sort()).toEqual(['created', ...Array(7).fill('repeated')]);
    });
  });

  describe('verdicts', () => {
    const verdict = (id: string, decision: Decision, changes: Partial<Verdict> = {}): Verdict => ({
      id,
      decision,
      decidedBy: byProducer,
      producerGroup: 'accounts',
      ...changes,
    });

    test('one flush answers moved, repeated, contradicted and unknown ids each by itself (F25, F26)', async () => {
      const { store } = opened();
      const purgedId = await forwardedTransaction(store);
      const foreignPurgedId = await forwardedTransaction(store, { producerGroup: 'orders' });
      expect(await store.purgeFinished(OLDER_THAN_NOTHING)).toBe(2);
      const [toCommit, toRollBack, committed, rolledBack, foreign] = [
        await prepare(store),
        await prepare(store),
        await prepare(store),
        await prepare(store),
        await prepare(store, { producerGroup: 'orders' }),
      ];
      await decide(store, committed, 'commit');
      await decide(store, rolledBack, 'rollback');
      const ids = [toCommit, toRollBack, committed, rolledBack, foreign, purgedId];
      const before = await store.find(ids);

      const byOperator = { decidedBy: { by: 'operator ann', reason: 'the customer called' } };
      const absent = newId();
      const results = await store.decide(
        [
          verdict(toCommit, 'commit', byOperator),
          verdict(toRollBack, 'rollback'),
          verdict(committed, 'commit'),
          verdict(rolledBack, 'commit'),
          verdict(foreign, 'commit'),
          verdict(absent, 'commit'),
          verdict(purgedId, 'rollback'),
          verdict(foreignPurgedId, 'commit'),
        ],
        30_000,
      );
      expect(results).toEqual([
        { kind: 'moved' },
        { kind: 'moved' },
        { kind: 'decided', found: before.get(committed) },
        { kind: 'decided', found: before.get(rolledBack) },
        { kind: 'unknown' },
        { kind: 'unknown' },
        { kind: 'decided', found: before.get(purgedId) },
        { kind: 'unknown' },
      ]);
      const after = await store.find(ids);
      for (const id of [committed, rolledBack, foreign, purgedId]) {
        expect(after.get(id)).toEqual(before.get(id));
      }
      expect(after.get(toCommit)?.decision).toMatchObject({
        decision: 'commit',
        by: 'operator ann',
        reason: 'the customer called',
      });
      expect(after.get(toRollBack)?.decision).toMatchObject({ decision: 'rollback' });
    });

    test('without a group any transaction is decided', async () => {
      const { store } = opened();
      const id = await prepare(store, { producerGroup: 'orders' });
      const [result] = await store.decide([{ id, decision: 'commit', decidedBy: byProducer }], 0);
      expect(result).toEqual({ kind: 'moved' });
    });

    test('the lease of a commit keeps the row from being due, a lease of 0 does not', async () => {
      const { store } = opened();
      const leased = await prepare(store);
      const released = await prepare(store);
      await store.decide([verdict(leased, 'commit')], 30_000);
      await store.decide([verdict(released, 'commit')], 0);
      const { due } = await store.claimDueForwards({ limit: 10, bytesMax: 1e6, leaseMs: 1_000 });
      expect(due.map(({ id }) => id)).toEqual([released]);
    });

    test('of concurrent verdicts exactly one moves each row, and its decision stands', async () => {
      const { store } = opened();
      const ids = await Promise.all(Array.from({ length: 40 }, () => prepare(store)));
      const decisions: Decision[] = ['commit', 'rollback', 'commit', 'rollback'];
      const flushes = await Promise.all(
        decisions.map((decision) =>
          store.decide(
            ids.map((id) => verdict(id, decision)),
            0,
          ),
        ),
      );
      const rows = await store.find(ids);
      ids.forEach((id, index) => {
        const results = flushes.map((flush) => flush[index]);
        const movers = results.flatMap((result, flush) =>
          result?.kind === 'moved' ? [decisions[flush]] : [],
        );
        expect(movers).toEqual([rows.get(id)?.decision?.decision]);
        expect(results.filter((result) => result?.kind === 'decided')).toHaveLength(3);
      });
    });

    test('a rollback settles the transaction, a commit does not yet', async () => {
      const at = (id: string) => columnOf(opened(), id, 'settled_at');
      const { store } = opened();
      const [rolledBack, committed] = [await prepare(store), await prepare(store)];
      await decide(store, rolledBack, 'rollback');
      await decide(store, committed, 'commit');
      expect(await at(rolledBack)).toBe((await rowOf(store, rolledBack)).decision?.at);
      expect(await at(committed)).toBe(NEVER);
    });
  });
}

import type { HistoryEvent } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { CheckToSave, Store } from '../../broker/src/domain/ports.js';
import { decide, type OpenStore, prepare, rowOf } from '../support/store-fixtures.js';
import { until } from '../support/until.js';

/** Prepared with its check due that long ago. */
const overdue = (store: Store, agoMs: number, changes = {}) =>
  prepare(store, { kind: { op: 'prepare', checkAfterMs: -agoMs }, ...changes });

const CHECKS = { limit: 100, leaseMs: 60_000, exceptGroups: [] };
const idsOf = (due: readonly { id: string }[]) => due.map(({ id }) => id);

export function checksContract(opened: () => OpenStore): void {
  describe('claims of checks', () => {
    test('a check is claimed with what its question needs', async () => {
      const { store } = opened();
      const id = await overdue(store, 5_000, {
        businessKeys: ['order:1', 'phone:2'],
        checkContext: 'shard-3',
        preparedAt: 1_700_000_000_123,
        trace: { traceparent: '00-abc', tracestate: 'a=1' },
      });
      const { state } = await rowOf(store, id);
      const before = await store.now();
      const { now, due } = await store.claimDueChecks(CHECKS);
      expect(now).toBeGreaterThanOrEqual(before);
      expect(due).toEqual([
        {
          id,
          state,
          producerGroup: 'accounts',
          checkContext: 'shard-3',
          businessKeys: ['order:1', 'phone:2'],
          preparedAt: 1_700_000_000_123,
          trace: { traceparent: '00-abc', tracestate: 'a=1' },
          alerted: false,
        },
      ]);
    });

    test('the oldest are claimed first, up to the limit, and none that is not due', async () => {
      const { store } = opened();
      const third = await overdue(store, 1_000);
      const first = await overdue(store, 3_000);
      const second = await overdue(store, 2_000);
      await overdue(store, -60_000);
      const { due } = await store.claimDueChecks({ ...CHECKS, limit: 2 });
      expect(idsOf(due)).toEqual([first, second]);
      expect(idsOf((await store.claimDueChecks(CHECKS)).due)).toEqual([third]);
    });

    test('a released check is due at once, and what was decided meanwhile stays decided', async () => {
      const { store } = opened();
      const open = await overdue(store, 1_000);
      const decided = await overdue(store, 1_000);
      await store.claimDueChecks(CHECKS);
      await store.decide([{ id: decided, decision: 'rollback', decidedBy: { by: 'producer' } }], 0);
      await store.releaseChecks([open, decided]);
      expect(idsOf((await store.claimDueChecks(CHECKS)).due)).toEqual([open]);
      expect((await rowOf(store, decided)).state.state).toBe('rolledBack');
    });

    test('nobody else gets a claimed check until its lease is over', async () => {
      const { store } = opened();
      const id = await overdue(store, 1_000);
      const claimed = await store.claimDueChecks({ ...CHECKS, leaseMs: 300 });
      expect(idsOf(claimed.due)).toEqual([id]);
      await until('the lease is over', async () => {
        const again = await store.claimDueChecks({ ...CHECKS, leaseMs: 300 });
        if (again.due.length === 0) return false;
        expect(again.now - claimed.now).toBeGreaterThanOrEqual(300);
        return true;
      });
    });

    test('checks of busy groups stay due and do not use up the limit', async () => {
      const { store } = opened();
      const busy = await overdue(store, 3_000, { producerGroup: 'busy' });
      const free = await overdue(store, 1_000);
      const claim = { ...CHECKS, limit: 1, exceptGroups: ['busy', 'other'] };
      expect(idsOf((await store.claimDueChecks(claim)).due)).toEqual([free]);
      expect(idsOf((await store.claimDueChecks(CHECKS)).due)).toEqual([busy]);
    });

    test('of some groups only what is overdue by enough is claimed, each by its own measure', async () => {
      const { store } = opened();
      const minute = await overdue(store, 61_000, { producerGroup: 'slow' });
      await overdue(store, 59_000, { producerGroup: 'slow' });
      const second = await overdue(store, 2_000, { producerGroup: 'quick' });
      await overdue(store, 500, { producerGroup: 'quick' });
      await overdue(store, 90_000, { producerGroup: 'busy' });
      const free = await overdue(store, 1_000);
      const onlyOverdue = [
        { groups: ['slow', 'other'], overdueMs: 60_000 },
        { groups: ['quick'], overdueMs: 1_000 },
      ];
      const claim = { ...CHECKS, exceptGroups: ['busy'], onlyOverdue };
      expect(idsOf((await store.claimDueChecks(claim)).due)).toEqual([minute, second, free]);
      expect((await store.claimDueChecks(CHECKS)).due).toHaveLength(3);
    });

    test('what a check found is there for the next one', async () => {
      const { store } = opened();
      const id = await overdue(store, 1_000);
      const [claimed] = (await store.claimDueChecks(CHECKS)).due;
      if (claimed === undefined) throw new Error('nothing was due');
      const dueAt = (await store.now()) - 1;
      const to = { state: 'prepared', checks: 0, unanswered: 1, dueAt } as const;
      const event = { at: dueAt, event: 'check', detail: { answer: 'none' } } as const;
      await store.saveChecks([
        { id, from: claimed.state, to, unansweredSince: 17, alerted: true, history: [event] },
      ]);
      const [next] = (await store.claimDueChecks(CHECKS)).due;
      expect(next).toMatchObject({ id, state: to, unansweredSince: 17, alerted: true });
      expect((await store.view(id))?.history).toEqual([event]);
    });
  });

  describe('results of checks that come too late', () => {
    const parkedNow = async (store: Store, id: string): Promise<CheckToSave> => {
      const [claimed] = (await store.claimDueChecks(CHECKS)).due;
      if (claimed?.id !== id) throw new Error(`claimed ${claimed?.id}`);
      const parkedAt = await store.now();
      const to = { state: 'parked', reason: 'unresolved', parkedAt } as const;
      const history: HistoryEvent[] = [{ at: parkedAt, event: 'parked', detail: {} }];
      return { id, from: claimed.state, to, alerted: true, history };
    };

    for (const decision of ['commit', 'rollback'] as const) {
      test(`a ${decision} that arrives during a check wins over its result`, async () => {
        const { store } = opened();
        const id = await overdue(store, 1_000);
        const result = await parkedNow(store, id);
        await decide(store, id, decision);
        const decided = await store.view(id);
        await store.saveChecks([result]);
        expect(await store.view(id)).toEqual(decided);
      });
    }

    test('of two instances that checked one row, the second to save changes nothing (F40)', async () => {
      const { store } = opened();
      const id = await overdue(store, 1_000);
      const late = await parkedNow(store, id);
      const to = { state: 'prepared', checks: 1, unanswered: 0, dueAt: 17 } as const;
      await store.saveChecks([{ id, from: late.from, to, alerted: false, history: [] }]);
      const saved = await store.view(id);
      await store.saveChecks([late]);
      expect(await store.view(id)).toEqual(saved);
    });

    test('a stale result leaves the others of its batch alone', async () => {
      const { store } = opened();
      const decided = await overdue(store, 1_000);
      const stale = await parkedNow(store, decided);
      const open = await overdue(store, 1_000);
      const good = await parkedNow(store, open);
      await decide(store, decided, 'rollback');
      await store.saveChecks([stale, good]);
      expect((await rowOf(store, decided)).state.state).toBe('rolledBack');
      expect((await rowOf(store, open)).state).toEqual(good.to);
      expect((await store.view(open))?.history).toEqual(good.history);
    });
  });
}

import type { HistoryEvent } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { ForwardingToSave, Store } from '../../broker/src/domain/ports.js';
import { NEVER } from '../../broker/src/store/sql.js';
import {
  columnOf,
  forward,
  messages,
  newId,
  newTransaction,
  type OpenStore,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';
import { until } from '../support/until.js';

/** Committed and due for forwarding that long ago. */
const overdueForward = (store: Store, agoMs: number, changes = {}) =>
  prepare(store, { kind: { op: 'send', leaseMs: -agoMs }, ...changes });

/** Prepared with its check due that long ago: nothing to forward. */
const overdue = (store: Store, agoMs: number) =>
  prepare(store, { kind: { op: 'prepare', checkAfterMs: -agoMs } });

const FORWARDS = { limit: 100, bytesMax: 1_000_000, leaseMs: 60_000 };
const idsOf = (due: readonly { id: string }[]) => due.map(({ id }) => id);

export function forwardsContract(opened: () => OpenStore): void {
  describe('claims of forwards', () => {
    test('a transaction is claimed with all that RabbitMQ is to be told', async () => {
      const { store } = opened();
      const content = {
        messages: messages(3),
        businessKeys: ['order:1'],
        expects: ['index'],
        trace: { traceparent: '00-abc', tracestate: 'a=1' },
        preparedAt: 1_700_000_000_123,
      };
      const id = await overdueForward(store, 1_000, content);
      const { due } = await store.claimDueForwards(FORWARDS);
      const bytes = Buffer.byteLength(JSON.stringify(content.messages));
      const decidedAt = (await rowOf(store, id)).decision?.at;
      const rest = { pending: 0b111, attempts: 0, bytes, producerGroup: 'accounts', decidedAt };
      expect(due).toEqual([{ id, ...content, ...rest }]);
      expect(await store.readCommitted([id])).toEqual(due);
    });

    test('the oldest are claimed first, up to the limit, and none that is not due', async () => {
      const { store } = opened();
      // Ids in another order than what is due: rows come back by their ids.
      const at = Date.now();
      const third = await overdueForward(store, 1_000, { id: newId(at - 9) });
      const second = await overdueForward(store, 2_000, { id: newId(at - 6) });
      const first = await overdueForward(store, 3_000, { id: newId(at - 3) });
      await overdueForward(store, -60_000);
      await overdue(store, 1_000);
      const { due } = await store.claimDueForwards({ ...FORWARDS, limit: 2 });
      expect(idsOf(due)).toEqual([first, second]);
      expect(idsOf((await store.claimDueForwards(FORWARDS)).due)).toEqual([third]);
    });

    test('a claim takes no more bytes than asked for, but at least one transaction', async () => {
      const { store } = opened();
      const big = await overdueForward(store, 3_000, { messages: messages(20) });
      const small = [await overdueForward(store, 2_000), await overdueForward(store, 1_000)];
      const claim = async (bytesMax: number) =>
        idsOf((await store.claimDueForwards({ ...FORWARDS, bytesMax })).due);
      expect(await claim(1)).toEqual([big]);
      const [{ bytes = 0 } = {}] = await store.readCommitted(small);
      expect(await claim(bytes * 2 - 1)).toEqual([small[0]]);
      expect(await claim(bytes * 2)).toEqual([small[1]]);
    });

    test('nobody else gets a claimed transaction until its lease is over or given up', async () => {
      const { store } = opened();
      const id = await overdueForward(store, 1_000);
      const leased = { ...FORWARDS, leaseMs: 300 };
      const claimed = await store.claimDueForwards(leased);
      expect(idsOf(claimed.due)).toEqual([id]);
      await until('the lease is over', async () => {
        const again = await store.claimDueForwards(leased);
        if (again.due.length === 0) return false;
        expect(again.now - claimed.now).toBeGreaterThanOrEqual(300);
        return true;
      });
      await store.releaseForwards([id]);
      expect(idsOf((await store.claimDueForwards(FORWARDS)).due)).toEqual([id]);
    });

    test('a postponed transaction is due at its time and not with its lease', async () => {
      const { store } = opened();
      const ids = [await overdueForward(store, 2_000), await overdueForward(store, 1_000)];
      const { due, now } = await store.claimDueForwards({ ...FORWARDS, leaseMs: 60_000 });
      expect(idsOf(due)).toEqual(ids);
      const [past = '', future = ''] = ids;
      await store.postponeForwards([
        { id: past, dueAt: now - 5 },
        { id: future, dueAt: now + 50_000 },
      ]);
      expect(await columnOf(opened(), future, 'due_at')).toBe(now + 50_000);
      const row = { state: 'committed', pending: 1, attempts: 0, dueAt: now - 5 };
      expect((await rowOf(store, past)).state).toEqual(row);
      expect(idsOf((await store.claimDueForwards(FORWARDS)).due)).toEqual([past]);
    });

    test.each([1, 64, 65, 200])(
      '%s are postponed in one call, each to its own time',
      async (count) => {
        const { store } = opened();
        const sent = Array.from({ length: count }, () =>
          newTransaction({ kind: { op: 'send', leaseMs: 0 } }),
        );
        await store.insert(sent);
        await store.postponeForwards(sent.map(({ id }, place) => ({ id, dueAt: 1_000 + place })));
        const times = new Map(
          (await store.search({ limit: 500 })).transactions.map(({ id, dueAt }) => [id, dueAt]),
        );
        expect(sent.map(({ id }) => times.get(id))).toEqual(sent.map((_, place) => 1_000 + place));
      },
    );

    test('postponing moves nothing that is not committed', async () => {
      const { store } = opened();
      const prepared = await prepare(store);
      const forwarded = await overdueForward(store, 0);
      await forward(store, [forwarded]);
      const before = await store.find([prepared, forwarded]);
      await store.postponeForwards([prepared, forwarded].map((id) => ({ id, dueAt: 5 })));
      await store.postponeForwards([]);
      expect(await store.find([prepared, forwarded])).toEqual(before);
    });

    test('giving up a lease moves nothing that is not committed', async () => {
      const { store } = opened();
      const prepared = await prepare(store);
      const forwarded = await overdueForward(store, 0);
      await forward(store, [forwarded]);
      const before = await store.find([prepared, forwarded]);
      await store.releaseForwards([prepared, forwarded]);
      expect(await store.find([prepared, forwarded])).toEqual(before);
      expect(await store.readCommitted([prepared, forwarded])).toEqual([]);
    });
  });

  describe('results of forwarding', () => {
    const partly = async (
      store: Store,
      id: string,
      masks: { done: number; pending: number },
    ): Promise<ForwardingToSave> => {
      const dueAt = (await store.now()) + 1_000;
      const to = { state: 'committed', pending: masks.pending, attempts: 1, dueAt } as const;
      return { id, done: masks.done, unrouted: 0, to, lastFailure: 'nacked', history: [] };
    };

    for (const order of ['first', 'last'] as const) {
      test(`two instances that confirm a part each end in forwarded, ${order} part first (F40)`, async () => {
        const { store } = opened();
        const id = await overdueForward(store, 0, { messages: messages(2) });
        const saves = [
          await partly(store, id, { done: 0b01, pending: 0b10 }),
          await partly(store, id, { done: 0b10, pending: 0b01 }),
        ];
        for (const save of order === 'first' ? saves : saves.reverse()) {
          expect((await rowOf(store, id)).state.state).toBe('committed');
          await store.saveForwards([save]);
        }
        const { state } = await rowOf(store, id);
        if (state.state !== 'forwarded') throw new Error(state.state);
        expect(await columnOf(opened(), id, 'pending')).toBe(0);
        expect(await columnOf(opened(), id, 'due_at')).toBe(NEVER);
        expect(await columnOf(opened(), id, 'settled_at')).toBe(state.forwardedAt);
      });
    }

    test('a part that only waits costs no attempt, and keeps no failure', async () => {
      const { store } = opened();
      const id = await overdueForward(store, 0, { messages: messages(2) });
      const failed = await partly(store, id, { done: 0, pending: 0b11 });
      await store.saveForwards([failed]);
      const { lastFailure, ...waits } = await partly(store, id, { done: 0b01, pending: 0b10 });
      await store.saveForwards([{ ...waits, onlyWaits: true }]);
      expect((await rowOf(store, id)).state).toEqual(waits.to);
      expect((await store.view(id))?.forwarding).toEqual({ failedAttempts: 1 });
    });

    test('a result for what is forwarded already changes nothing', async () => {
      const { store } = opened();
      const id = await overdueForward(store, 0, { messages: messages(2) });
      await forward(store, [id]);
      const before = await store.view(id);
      const late = await partly(store, id, { done: 0b01, pending: 0b10 });
      const at = await store.now();
      const parked = {
        state: 'parked',
        reason: 'undeliverable',
        pending: 2,
        parkedAt: at,
      } as const;
      const event: HistoryEvent = { at, event: 'parked', detail: {} };
      await store.saveForwards([late]);
      await store.saveForwards([{ ...late, to: parked, history: [event] }]);
      await forward(store, [id]);
      expect(await store.view(id)).toEqual(before);
    });

    test('a message dropped because nobody was bound is done, and shown as unrouted', async () => {
      const { store } = opened();
      const id = await overdueForward(store, 0, { messages: messages(2) });
      const forwardedAt = await store.now();
      const event: HistoryEvent = { at: 17, event: 'unrouted', detail: { messages: [1] } };
      const to = { state: 'forwarded', forwardedAt } as const;
      await store.saveForwards([{ id, done: 0b11, unrouted: 0b10, to, history: [event] }]);
      const view = await store.view(id);
      expect(view?.state).toBe('forwarded');
      expect(view?.messages.map(({ state }) => state)).toEqual(['forwarded', 'unrouted']);
      expect(view?.history).toEqual([event]);
    });

    test('a batch saves whole, parked, failed and forwarded rows together', async () => {
      const { store } = opened();
      const ids = [
        await overdueForward(store, 0),
        await overdueForward(store, 0, { messages: messages(2) }),
        await overdueForward(store, 0),
      ] as const;
      const parkedAt = await store.now();
      const failed = await partly(store, ids[1], { done: 0b01, pending: 0b10 });
      await store.saveForwards([
        {
          id: ids[0],
          done: 0,
          unrouted: 0,
          to: { state: 'parked', reason: 'undeliverable', pending: 1, parkedAt },
          lastFailure: 'NO_ROUTE',
          history: [{ at: 1, event: 'parked', detail: { reason: 'undeliverable' } }],
        },
        failed,
        { ...failed, id: ids[2], done: 1, to: { state: 'forwarded', forwardedAt: parkedAt } },
      ]);
      const states = await Promise.all(ids.map(async (id) => (await rowOf(store, id)).state));
      expect(states).toEqual([
        { state: 'parked', reason: 'undeliverable', pending: 1, parkedAt },
        failed.to,
        { state: 'forwarded', forwardedAt: expect.any(Number) },
      ]);
      expect((await store.view(ids[0]))?.forwarding).toEqual({
        failedAttempts: 1,
        lastFailure: 'NO_ROUTE',
      });
    });
  });
}

import type { Store } from '../../broker/src/domain/ports.js';
import type { State } from '../../broker/src/domain/transaction.js';
import { decide, forward, messages, prepare, rowOf } from '../support/store-fixtures.js';

/** A prepared row as a check found it, before anything else happened to it. */
export type PreparedState = Extract<State, { state: 'prepared' }>;

/** A row put into its state, with what a check that began earlier still holds. */
export interface Placed {
  id: string;
  seenByCheck: PreparedState;
}

/** Message 0 is confirmed, message 1 is not. */
export const PARTLY_DONE = 0b01;

async function prepared(store: Store): Promise<Placed> {
  const id = await prepare(store, { messages: messages(2) });
  const { state } = await rowOf(store, id);
  if (state.state !== 'prepared') throw new Error(`a new row is ${state.state}`);
  return { id, seenByCheck: state };
}

async function committed(store: Store): Promise<Placed> {
  const placed = await prepared(store);
  await decide(store, placed.id, 'commit');
  return placed;
}

async function afterFailure(store: Store, to: (now: number) => State): Promise<Placed> {
  const placed = await committed(store);
  const now = await store.now();
  const result = { id: placed.id, done: PARTLY_DONE, unrouted: 0, history: [] };
  await store.saveForwards([{ ...result, to: to(now), lastFailure: 'message 1: NO_ROUTE' }]);
  return placed;
}

/**
 * One row of every kind that the rules tell apart, made by the store's own operations. The keys
 * are `state` or `state: what is special`, which a test compares with the states there are.
 */
export const STATE_CASES = {
  prepared,
  committed,
  'committed: partly confirmed': (store: Store) =>
    afterFailure(store, (now) => ({
      state: 'committed',
      pending: 0b10,
      attempts: 1,
      dueAt: now + 1_000,
    })),
  async forwarded(store: Store): Promise<Placed> {
    const placed = await committed(store);
    await forward(store, [placed.id]);
    return placed;
  },
  async rolledBack(store: Store): Promise<Placed> {
    const placed = await prepared(store);
    await decide(store, placed.id, 'rollback');
    return placed;
  },
  async 'parked: unresolved'(store: Store): Promise<Placed> {
    const placed = await prepared(store);
    const parkedAt = await store.now();
    const to = { state: 'parked', reason: 'unresolved', parkedAt } as const;
    const { id, seenByCheck: from } = placed;
    await store.saveChecks([{ id, from, to, alerted: false, history: [] }]);
    return placed;
  },
  'parked: undeliverable': (store: Store) =>
    afterFailure(store, (parkedAt) => ({
      state: 'parked',
      reason: 'undeliverable',
      pending: 0b10,
      parkedAt,
    })),
} satisfies Record<string, (store: Store) => Promise<Placed>>;

export type StateCase = keyof typeof STATE_CASES;
export const STATE_CASE_NAMES = Object.keys(STATE_CASES) as StateCase[];

import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { byProducer, type Committed } from '../../broker/src/domain/transaction.js';
import type { Database, Sql } from '../../broker/src/store/sql.js';
import { createStore } from '../../broker/src/store/store.js';
import { confirmed } from '../contract/ordering.contract.js';
import { deferred } from '../support/ready.js';
import { freshMysqlDatabase } from '../support/servers.js';
import {
  emptyStore,
  message,
  newTransaction,
  type OpenStore,
  openMysqlForTest,
  prepare,
} from '../support/store-fixtures.js';

const FORWARDS = { limit: 100, bytesMax: 1_000_000, leaseMs: 60_000 };
const LEASE_MS = 60_000;
const commit = (id: string) => ({ id, decision: 'commit', decidedBy: byProducer }) as const;
const ordered = (...keys: string[]) => keys.map((orderingKey) => message({ orderingKey }));

let here: OpenStore;
let there: OpenStore;

beforeAll(async () => {
  const url = await freshMysqlDatabase();
  here = await openMysqlForTest(url);
  there = await openMysqlForTest(url);
});
beforeEach(() => emptyStore(here));
afterAll(async () => {
  await here.store.close();
  await there.store.close();
});

/** A database whose first transaction stands still before statement `step`, once, until told. */
function pausedBefore(database: Database, step: number) {
  const reached = deferred();
  const mayGo = deferred();
  let statements = 0;
  const atStep = async () => {
    statements += 1;
    if (statements !== step) return;
    reached.resolve();
    await mayGo.promise;
  };
  const paused: Database = {
    ...database,
    transaction: async (work) => {
      const result = await database.transaction(async (sql) => {
        const stepping: Sql = {
          all: async (...statement) => {
            await atStep();
            return sql.all(...statement);
          },
          run: async (...statement) => {
            await atStep();
            return sql.run(...statement);
          },
          insertRows: async (insert) => {
            await atStep();
            return sql.insertRows(insert);
          },
        };
        const result = await work(stepping);
        // Before the COMMIT.
        await atStep();
        return result;
      });
      reached.resolve();
      return result;
    },
  };
  return { paused, reached: reached.promise, go: mayGo.resolve };
}

/** The head of the key, claimed here and published; and a prepared one that comes behind it. */
async function arranged(): Promise<{ row: Committed; next: string }> {
  const first = await prepare(here.store, { messages: ordered('a') });
  const next = await prepare(here.store, { messages: ordered('a') });
  await here.store.decide([commit(first)], 0);
  const [row] = (await here.store.claimDueForwards(FORWARDS)).due;
  if (row?.id !== first) throw new Error('the first was not claimed');
  return { row, next };
}

/** A commit with a lease, and what its own instance reads right after it. */
async function commitAndRead(database: Database, id: string): Promise<boolean> {
  const store = createStore(database, 'test');
  expect(await store.decide([commit(id)], LEASE_MS)).toEqual([{ kind: 'moved' }]);
  const [row] = await store.readCommitted([id]);
  return row?.places?.[0]?.isHead === true;
}

const confirm = async (database: Database, row: Committed) =>
  createStore(database, 'test').saveForwards([await confirmed(here.store, row)]);

/** Time for the other side to get through; it may as well be waiting for a lock. */
const aMoment = () => new Promise((resolve) => setTimeout(resolve, 50));

/** More than any has; what is not reached pauses nothing. */
const STEPS = Array.from({ length: 9 }, (_, index) => index + 1);

describe('a commit and the confirm of what is before it, at two instances', () => {
  /** Seen at the head by its own instance, or made due by the confirm. */
  async function goesOn(next: string, committing: Promise<boolean>): Promise<void> {
    if (await committing) return;
    const { due } = await there.store.claimDueForwards(FORWARDS);
    expect(due.map(({ id }) => id)).toEqual([next]);
  }

  test.each(STEPS)('the next goes on when the confirm pauses before step %d', async (step) => {
    const { row, next } = await arranged();
    const { paused, reached, go } = pausedBefore(here.database, step);
    const saving = confirm(paused, row);
    await reached;
    const committing = commitAndRead(there.database, next);
    await Promise.race([committing, aMoment()]);
    go();
    await saving;
    await goesOn(next, committing);
  });

  test.each(STEPS)('the next goes on when the commit pauses before step %d', async (step) => {
    const { row, next } = await arranged();
    const { paused, reached, go } = pausedBefore(there.database, step);
    const committing = commitAndRead(paused, next);
    await reached;
    const saving = confirm(here.database, row);
    await Promise.race([saving, aMoment()]);
    go();
    await saving;
    await goesOn(next, committing);
  });

  test.each(STEPS)('the next goes on when a claim of it pauses before step %d', async (step) => {
    const { row, next } = await arranged();
    await there.store.decide([commit(next)], 0);
    const { paused, reached, go } = pausedBefore(there.database, step);
    const claiming = createStore(paused, 'test').claimDueForwards(FORWARDS);
    await reached;
    const saving = confirm(here.database, row);
    await Promise.race([saving, aMoment()]);
    go();
    const [{ due }] = await Promise.all([claiming, saving]);
    const later = await there.store.claimDueForwards(FORWARDS);
    expect([...due, ...later.due].map(({ id }) => id)).toContain(next);
  });
});

describe('many commits and confirms on the same keys at two instances', () => {
  const KEYS = 7;
  const TRANSACTIONS = 160;

  test('each key is published in its order, without a gap, and nothing stays behind', async () => {
    const published = new Map<string, number[]>();
    const first = new Set<string>();
    const keysOf = (n: number) =>
      [0, 1, 2].slice(0, 1 + (n % 3)).map((m) => `key-${(n * (m + 1) + m) % KEYS}`);

    async function produce({ store }: OpenStore, from: number): Promise<void> {
      for (let n = from; n < TRANSACTIONS; n += 8) {
        const some = [n, n + 2, n + 4, n + 6].filter((at) => at < TRANSACTIONS);
        const batch = some.map((at) => newTransaction({ messages: ordered(...keysOf(at)) }));
        await store.insert(batch);
        await store.decide(batch.map(({ id }) => commit(id)).reverse(), 0);
      }
    }

    let producing = true;
    async function forwardAll({ store }: OpenStore): Promise<void> {
      for (;;) {
        const last = !producing;
        const { due, putOff } = await store.claimDueForwards({ ...FORWARDS, limit: 20 });
        for (const row of due) {
          for (const place of row.places ?? []) {
            if (!place.isHead) continue;
            // A repeat may come after the next one; the first time counts.
            const messageId = `${row.id}-${place.number}`;
            if (first.has(messageId)) continue;
            first.add(messageId);
            const key = row.messages[place.number]?.orderingKey ?? '';
            published.set(key, [...(published.get(key) ?? []), place.sequence]);
          }
        }
        await store.saveForwards(await Promise.all(due.map((row) => confirmed(store, row))));
        if (last && due.length + putOff === 0) return;
      }
    }

    const producers = [produce(here, 0), produce(there, 1)];
    const forwarders = [forwardAll(here), forwardAll(there), forwardAll(here)];
    await Promise.all(producers);
    producing = false;
    await Promise.all(forwarders);
    const { byState } = await here.store.counts();
    expect(byState).toMatchObject({ forwarded: TRANSACTIONS, committed: 0, prepared: 0 });
    const expected = new Map<string, number>();
    for (let n = 0; n < TRANSACTIONS; n += 1) {
      for (const key of keysOf(n)) expected.set(key, (expected.get(key) ?? 0) + 1);
    }
    for (const [key, count] of expected) {
      expect(published.get(key)).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    }
  }, 60_000);
});

import { describe, expect, test } from '@jest/globals';
import type { Store } from '../../broker/src/domain/ports.js';
import { byProducer } from '../../broker/src/domain/transaction.js';
import type { Database, Sql, SqlValue } from '../../broker/src/store/sql.js';
import { createStore } from '../../broker/src/store/store.js';
import { newId, newTransaction, type OpenStore, rowOf } from '../support/store-fixtures.js';

/** So many that a planner without better advice goes by their state. */
const OTHER_ROWS = 3_000;
/** As many as one flush has; of fewer, planners look up the ids by themselves. */
const TOGETHER = 128;

const FORWARDS = { limit: 10, bytesMax: 1_000_000, leaseMs: 0 };
const OLDER_THAN_NOTHING = { olderThanMs: 0, limit: TOGETHER };
const CHECKS = { limit: 10, leaseMs: 0, exceptGroups: [] };

const UNPOLLED = { ...CHECKS, onlyOverdue: [{ groups: ['accounts', 'orders'], overdueMs: 500 }] };

const BY_ID = /^(PRIMARY|.* sqlite_autoindex_escrow_transaction_1 .*)$/;
const IN_ORDER_OF_IDS = /PRIMARY|sqlite_autoindex_escrow_transaction_1/;
const BY_DUE_TIME = /escrow_transaction_(due|prepared|committed)/;

interface Statement {
  sql: string;
  values: readonly SqlValue[];
}

/** The same database, and a record of the statements on transactions that it was given. */
function recording(database: Database): { recorded: Database; statements: Statement[] } {
  const statements: Statement[] = [];
  const record = (sql: string, values: readonly SqlValue[] = []) => {
    if (/^\s*(select|update|delete).*\sescrow_transaction\s/is.test(sql)) {
      statements.push({ sql, values });
    }
  };
  const on = (target: Sql): Sql => ({
    ...target,
    all(sql, values) {
      record(sql, values);
      return target.all(sql, values);
    },
    run(sql, values) {
      record(sql, values);
      return target.run(sql, values);
    },
  });
  const transaction: Database['transaction'] = (work) =>
    database.transaction((sql) => work(on(sql)));
  return { recorded: { ...database, ...on(database), transaction }, statements };
}

/** What the planner says about each table that the statement reads: the index it goes by. */
async function planOf(database: Database, { sql, values }: Statement): Promise<string[]> {
  if (database.dialect.skipLocked === '') {
    const rows = await database.all<{ detail: string }>(`explain query plan ${sql}`, values);
    return rows.map(({ detail }) => detail).filter((detail) => /escrow_transaction/.test(detail));
  }
  // MySQL 9.7 draws a tree where no format is asked for.
  const rows = await database.all<{ table: string; key: string | null }>(
    `explain format=traditional ${sql}`,
    values,
  );
  return rows.filter(({ table }) => table === 'escrow_transaction').map(({ key }) => String(key));
}

const prepares = (count: number, checkAfterMs: number) =>
  Array.from({ length: count }, () =>
    newTransaction({ expects: ['index'], kind: { op: 'prepare', checkAfterMs } }),
  );

async function insertInBatches(store: Store, count: number): Promise<void> {
  for (let left = count; left > 0; left -= 500) {
    await store.insert(prepares(Math.min(left, 500), 60_000));
  }
}

export function plansContract(opened: () => OpenStore): void {
  describe('among many rows of the same state', () => {
    /** Does `work` on ids of prepared rows; resolves with the plans of its statements. */
    async function plans(
      work: (store: Store, ids: string[]) => Promise<unknown>,
      arrange: (store: Store, ids: string[]) => Promise<unknown> = async () => undefined,
    ): Promise<string[]> {
      const { store, database } = opened();
      await insertInBatches(store, OTHER_ROWS);
      const batch = prepares(TOGETHER, -1_000);
      await store.insert(batch);
      const ids = batch.map(({ id }) => id);
      await arrange(store, ids);
      const { recorded, statements } = recording(database);
      await work(createStore(recorded, 'test'), ids);
      expect(statements).not.toEqual([]);
      return (await Promise.all(statements.map((each) => planOf(database, each)))).flat();
    }

    const commitAll = (store: Store, ids: string[]) =>
      store.decide(
        ids.map((id) => ({ id, decision: 'commit', decidedBy: byProducer })),
        0,
      );
    const leaveAllOpen = () =>
      opened().database.run(
        `update escrow_transaction set pending = 0, messages = '[{"topic":"user","dataAtCommit":true}]'`,
      );
    const commitAllWithData = (store: Store, ids: string[]) =>
      store.decide(
        ids.map((id) => ({
          id,
          decision: 'commit',
          decidedBy: byProducer,
          supplied: { data: [{ number: 0, data: 1 }], bytesMax: 1_000 },
        })),
        0,
      );
    const rollBackAll = (store: Store, ids: string[]) =>
      store.decide(
        ids.map((id) => ({ id, decision: 'rollback', decidedBy: { by: 'check' } })),
        0,
      );
    const finishAll = (store: Store, ids: string[]) =>
      store.saveForwards(
        ids.map((id) => ({
          id,
          done: 1,
          unrouted: 0,
          to: { state: 'forwarded', forwardedAt: 0 },
          history: [],
        })),
      );
    const failOne = (store: Store, [id = '']: string[]) => {
      const to = { state: 'committed', pending: 1, attempts: 1, dueAt: 0 } as const;
      return store.saveForwards([{ id, done: 0, unrouted: 0, to, history: [] }]);
    };
    const postpone = (store: Store, ids: string[]) =>
      store.postponeForwards(ids.map((id, place) => ({ id, dueAt: place })));
    const cancelOne = async (store: Store, [id = '']: string[]) => {
      const result = await store.cancel({ id, by: 'producer', reason: 'x' });
      if (result.kind !== 'cancelled') throw new Error(JSON.stringify(result));
    };
    const commitDelayed = async (store: Store, ids: string[]) => {
      await opened().database.run(
        `update escrow_transaction set messages = '[{"topic":"user","delayMs":60000}]'`,
      );
      await commitAll(store, ids);
    };
    const orderAll = () =>
      opened().database.run(
        `update escrow_transaction
         set pending = 0, messages = '[{"topic":"user","orderingKey":"a"}]'`,
      );
    const commitInOrder = async (store: Store, ids: string[]) => {
      await orderAll();
      await commitAll(store, ids);
    };
    const confirmFirst = async (store: Store, ids: string[]) => {
      const rows = await store.readCommitted(ids);
      const first = rows.find(({ places }) => places?.[0]?.isHead === true);
      if (first?.places === undefined) throw new Error('no row is at the head of its key');
      const to = { state: 'forwarded', forwardedAt: 0 } as const;
      const save = { id: first.id, done: 1, unrouted: 0, to, history: [], places: first.places };
      expect((await store.saveForwards([save])).woken).toHaveLength(1);
    };
    const checkOne = async (store: Store, [id = '']: string[]) => {
      const { state } = await rowOf(store, id);
      if (state.state !== 'prepared') throw new Error(state.state);
      await store.saveChecks([{ id, from: state, to: state, alerted: false, history: [] }]);
    };
    const commitAndFinish = async (store: Store, ids: string[]) => {
      await commitAll(store, ids);
      await finishAll(store, ids);
    };
    const closeAll = async (store: Store, ids: string[]) => {
      const [first = ''] = ids;
      if ((await rowOf(store, first)).state.state === 'prepared') await commitAndFinish(store, ids);
      for (const id of ids) {
        const result = await store.closeUnsettled({ id, operator: 'ann', reason: 'x' });
        if (result.kind !== 'closed') throw new Error(JSON.stringify(result));
      }
    };
    const receive = (store: Store, ids: string[]) =>
      store.saveReceipts(
        ids.map((id) => ({ messageId: `${id}-0`, consumerGroup: 'index', kind: 'consumed' })),
      );

    test.each([
      ['commits', commitAll, undefined],
      ['rollbacks', rollBackAll, undefined],
      ['repeated verdicts', commitAll, commitAll],
      ['commits with data', commitAllWithData, leaveAllOpen],
      ['repeated commits with data', commitAllWithData, commitAll],
      ['commits that lack data', commitAll, leaveAllOpen],
      ['commits of ordered messages', commitAll, orderAll],
      ['the confirm of an ordered message', confirmFirst, commitInOrder],
      ['released checks', (store: Store, ids: string[]) => store.releaseChecks(ids), undefined],
      ['the result of a check', checkOne, undefined],
      ['confirms', finishAll, commitAll],
      ['the result of a failed forwarding', failOne, commitAll],
      ['postponed forwards', postpone, commitAll],
      ['released forwards', (store: Store, ids: string[]) => store.releaseForwards(ids), commitAll],
      ['messages to forward', (store: Store, ids: string[]) => store.readCommitted(ids), commitAll],
      ['a cancelling', cancelOne, commitDelayed],
      ['receipts', receive, commitAll],
      ['receipts of what is closed', receive, closeAll],
      ['a close', closeAll, commitAndFinish],
      ['a look at business keys', (store: Store) => store.unsettledOn(['phone:1']), undefined],
      ['a wait for transactions', (store: Store, ids: string[]) => store.unsettled(ids), commitAll],
      ['a purge', (store: Store) => store.purgeFinished(OLDER_THAN_NOTHING), rollBackAll],
      [
        'a purge of what is closed',
        (store: Store) => store.purgeFinished(OLDER_THAN_NOTHING),
        closeAll,
      ],
      [
        'what is overdue',
        (store: Store) => store.tellOverdue(OLDER_THAN_NOTHING, () => undefined),
        commitAndFinish,
      ],
    ])('%s: rows are found by their ids', async (_what, work, arrange) => {
      for (const plan of await plans(work, arrange)) expect(plan).toMatch(BY_ID);
    });

    test.each([
      ['alone', {}],
      ['of one producer group', { producerGroup: 'accounts' }],
      ['of one topic', { topic: 'user' }],
      ['on its second page', { cursor: newId() }],
    ])(
      'a search for a state that few rows have, %s, finds ids by the state and rows by their ids',
      async (_what, query) => {
        const steps = await plans(
          (store) => store.search({ state: 'committed', limit: 50, ...query }),
          commitAll,
        );
        // The state's rows are counted and then searched; databases tell the steps in various orders.
        expect(steps.filter((step) => BY_DUE_TIME.test(step))).toHaveLength(2);
        expect(steps.filter((step) => BY_ID.test(step))).toHaveLength(1);
        expect(steps).toHaveLength(3);
      },
    );

    test('a search for a business key finds rows by the ids of that key', async () => {
      const query = { businessKey: 'phone:1', state: 'prepared', limit: 50 } as const;
      for (const step of await plans((store) => store.search(query))) expect(step).toMatch(BY_ID);
    });

    test('a search for no state goes from the newest row on', async () => {
      const plan = await plans((store) => store.search({ producerGroup: 'orders', limit: 50 }));
      for (const step of plan) expect(step).toMatch(IN_ORDER_OF_IDS);
    });

    test.each([
      ['checks', (store: Store) => store.claimDueChecks(CHECKS), undefined],
      ['checks of unpolled groups', (store: Store) => store.claimDueChecks(UNPOLLED), undefined],
      ['forwards', (store: Store) => store.claimDueForwards(FORWARDS), commitAll],
    ])(
      'a claim of due %s finds them by their time and leases them by their ids',
      async (_what, work, arrange) => {
        const [claim, ...rest] = await plans(work, arrange);
        expect(claim).toMatch(BY_DUE_TIME);
        expect(rest).not.toEqual([]);
        for (const plan of rest) expect(plan).toMatch(BY_ID);
      },
    );
  });
}

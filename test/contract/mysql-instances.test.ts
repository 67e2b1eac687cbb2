import { setTimeout as pause } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createConnection } from 'mysql2/promise';
import { createStore } from '../../broker/src/store/store.js';
import { pausedAfter } from '../support/paused-database.js';
import { freshMysqlDatabase } from '../support/servers.js';
import {
  newTransaction,
  type OpenStore,
  openMysqlForTest,
  prepare,
  rowOf,
} from '../support/store-fixtures.js';
import { startChild } from './children.js';

const CHECKS = { limit: 100, leaseMs: 60_000, exceptGroups: [] };
const FORWARDS = { limit: 100, bytesMax: 1_000_000, leaseMs: 60_000 };
const TOGETHER = 200;

let url: string;
let here: OpenStore;
let there: OpenStore;

beforeEach(async () => {
  url = await freshMysqlDatabase();
  here = await openMysqlForTest(url);
  there = await openMysqlForTest(url);
});
afterEach(async () => {
  await here.store.close();
  await there.store.close();
});

describe('several instances on one MySQL database', () => {
  test.each(['check', 'forward'] as const)(
    'two processes that claim every %s share them without one row twice (F40)',
    async (what) => {
      const kind =
        what === 'check'
          ? ({ op: 'prepare', checkAfterMs: -1_000 } as const)
          : ({ op: 'send', leaseMs: -1_000 } as const);
      const batch = Array.from({ length: TOGETHER }, () => newTransaction({ kind }));
      await here.store.insert(batch);
      // Each stops at half: on a busy machine one could be through before the other has begun.
      const claim = () => startChild('claim', what, url, String(TOGETHER / 2));
      const children = [claim(), claim()];
      for (const child of children) expect(await child.nextLine()).toBe('ready');
      for (const child of children) child.send('go');
      const claimed: string[][] = [];
      for (const child of children) {
        claimed.push(JSON.parse(await child.nextLine()));
        await child.end();
      }
      expect(claimed.flat().sort()).toEqual(batch.map(({ id }) => id).sort());
    },
  );

  test('while a claim is open, others claim the rest and prepares and verdicts go on', async () => {
    const kind = { op: 'prepare', checkAfterMs: -1_000 } as const;
    const first = await prepare(here.store, { kind: { ...kind, checkAfterMs: -2_000 } });
    const second = await prepare(here.store, { kind });
    const { paused, reached, go } = pausedAfter(here.database, /./);
    const claim = createStore(paused, 'test').claimDueChecks({ ...CHECKS, limit: 1 });
    await reached;

    // Each of these would wait for five seconds, and fail, if the claim held more than its row.
    const startedAt = performance.now();
    const others = await there.store.claimDueChecks(CHECKS);
    expect(others.due.map(({ id }) => id)).toEqual([second]);
    for (const checkAfterMs of [-3_000, -1_500, 0, 60_000]) {
      await prepare(there.store, { kind: { op: 'prepare', checkAfterMs } });
    }
    await prepare(there.store, { kind: { op: 'send', leaseMs: 0 } });
    const verdict = { decision: 'commit', decidedBy: { by: 'producer' } } as const;
    expect(await there.store.decide([{ id: second, ...verdict }], 0)).toEqual([{ kind: 'moved' }]);
    expect(performance.now() - startedAt).toBeLessThan(4_000);

    go();
    expect((await claim).due.map(({ id }) => id)).toEqual([first]);
  });

  test('a deadlock is run again, and both sides end as they wanted (F44)', async () => {
    const kind = { op: 'send', leaseMs: 0 } as const;
    const [low = '', high = ''] = [
      await prepare(here.store, { kind }),
      await prepare(here.store, { kind }),
    ];
    // InnoDB rolls back the side that has changed less: this one changes a thousand rows.
    const heavy = await createConnection(url);
    await heavy.query('create table ballast (n int primary key)');
    await heavy.query('start transaction');
    await heavy.query('insert into ballast values ?', [
      Array.from({ length: 1_000 }, (_, n) => [n]),
    ]);
    const touch = 'update escrow_transaction set last_failure = ? where id = ?';
    const bytes = (id: string) => Buffer.from(id.replaceAll('-', ''), 'hex');
    await heavy.query(touch, ['heavy', bytes(high)]);

    const dueAt = (await here.store.now()) + 60_000;
    const to = { state: 'committed', pending: 1, attempts: 1, dueAt } as const;
    const save = here.store.saveForwards(
      [low, high].map((id) => ({ id, done: 0, unrouted: 0, to, history: [] })),
    );
    await waitsForLock(heavy);
    await heavy.query(touch, ['heavy', bytes(low)]);
    await heavy.query('commit');
    await heavy.end();
    await save;
    for (const id of [low, high]) expect((await rowOf(here.store, id)).state).toEqual(to);
  });

  test('rows saved by two instances in opposite orders all arrive', async () => {
    const kind = { op: 'send', leaseMs: 0 } as const;
    const batch = Array.from({ length: 40 }, () => newTransaction({ kind }));
    await here.store.insert(batch);
    const dueAt = await here.store.now();
    const to = { state: 'committed', pending: 1, attempts: 1, dueAt } as const;
    const saves = batch.map(({ id }) => ({ id, done: 0, unrouted: 0, to, history: [] }));
    await Promise.all([
      here.store.saveForwards(saves),
      there.store.saveForwards([...saves].reverse()),
      here.store.saveForwards(saves),
      there.store.saveForwards([...saves].reverse()),
    ]);
    const { due } = await here.store.claimDueForwards(FORWARDS);
    expect(due.map(({ attempts }) => attempts)).toEqual(batch.map(() => 4));
  });
});

/** InnoDB refreshes what it tells about transactions only when nobody asked for 100 ms. */
const LOCK_POLL_MS = 150;

/** Waits until a statement on this server's transactions waits for a lock. */
async function waitsForLock(connection: Awaited<ReturnType<typeof createConnection>>) {
  for (;;) {
    const [rows] = await connection.query(
      `select 1 from information_schema.innodb_trx where trx_state = 'LOCK WAIT'
       and trx_query like '%escrow_transaction%'`,
    );
    if ((rows as unknown[]).length > 0) return;
    await pause(LOCK_POLL_MS);
  }
}

import { EscrowError } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import type { LocalDatabase } from '../../database/src/database.js';
import { deleteRowsSql } from '../../database/src/delete-rows.js';
import {
  type Chore,
  type Housekeeping,
  type HousekeepingNews,
  keepHouse,
} from '../../database/src/housekeeping.js';
import { parseEveryMs, parseKeptMs } from '../../database/src/housekeeping-options.js';
import {
  afterPurge,
  firstDelayMs,
  NO_PAST,
  type Past,
  pauseMsAfter,
} from '../../database/src/housekeeping-plan.js';
import { until } from '../support/until.js';

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const at = { now: 0, chance: 0.5, everyMs: HOUR_MS };
const failed = (error: unknown) => ({ ended: 'failed', error }) as const;
const away = new EscrowError('DATABASE_UNAVAILABLE', 'away');

// ---- when, by a given clock and a given chance

test('the first purge comes 5 to 15 minutes after the start, the next ones an hour apart, give or take a tenth', () => {
  expect([0, 0.5, 1].map(firstDelayMs)).toEqual([5, 10, 15].map((each) => each * MINUTE_MS));
  const next = (chance: number) => afterPurge(NO_PAST, { ended: 'done' }, { ...at, chance });
  expect([0, 0.5, 1].map(next)).toMatchObject([
    { delayMs: 54 * MINUTE_MS },
    { delayMs: HOUR_MS },
    { delayMs: 66 * MINUTE_MS },
  ]);
});

test('between portions it leaves its connection alone for three quarters of the time', () => {
  expect([0, 10, 100, 1_000, 60_000].map(pauseMsAfter)).toEqual([100, 100, 300, 3_000, 5_000]);
});

test('a failure is tried again within seconds, told when it was none by chance, and then every six hours', () => {
  let past: Past = NO_PAST;
  const fail = (now: number) => {
    const next = afterPurge(past, failed(away), { ...at, now });
    if (next.next === 'end') throw new Error('it ended');
    past = next.past;
    return [next.delayMs, next.isTold];
  };
  expect(fail(0)).toEqual([15 * SECOND_MS, false]);
  expect(fail(15 * SECOND_MS)).toEqual([HOUR_MS, true]);
  expect(fail(HOUR_MS)).toEqual([HOUR_MS, false]);
  expect(fail(5 * HOUR_MS)).toEqual([HOUR_MS, false]);
  expect(fail(7 * HOUR_MS)).toEqual([HOUR_MS, true]);
  const healed = afterPurge(past, { ended: 'done' }, at);
  expect(healed).toMatchObject({ isTold: false, past: { failuresInARow: 0 } });
});

test.each([
  ['a pool of mysql2 that was closed', new Error('Pool is closed.')],
  ['one of pg', new Error('Cannot use a pool after calling end on the pool')],
  [
    'one below an adapter',
    new EscrowError('DATABASE_UNAVAILABLE', 'no', { cause: new Error('Pool is closed.') }),
  ],
  ['Knex', new Error('Unable to acquire a connection')],
  ['Kysely', new Error('driver has already been destroyed')],
  ['TypeORM on MySQL', new Error('Connection is not established with mysql database')],
  ['TypeORM on PostgreSQL', new Error('Driver not Connected')],
  [
    'Sequelize',
    new Error(
      'ConnectionManager.getConnection was called after the connection manager was closed!',
    ),
  ],
  ['better-sqlite3', new TypeError('The database connection is not open')],
  ['node:sqlite', new Error('database is not open')],
  ['a table that is not there', Object.assign(new Error(''), { errno: 1146, sqlState: '42S02' })],
])('it ends without a word: %s', (_, error) => {
  expect(afterPurge(NO_PAST, failed(error), at)).toEqual({ next: 'end' });
});

test.each([
  [
    'a pool that is busy',
    new Error('Knex: Timeout acquiring a connection. The pool is probably full.'),
  ],
  [
    'a connection that the server closed',
    new Error("Can't add new command when connection is in closed state"),
  ],
  ['whatever is no error', Object.create(null)],
])('it does not end for %s', (_, error) => {
  expect(afterPurge(NO_PAST, failed(error), at)).toMatchObject({ next: 'wait' });
});

test('settings are refused with the reason', () => {
  const refused = (message: string) =>
    expect.objectContaining({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining(message),
    });
  const least = { ms: 1_000, why: 'rows are needed' };
  for (const value of [
    999,
    0,
    -1,
    1_000.5,
    Number.NaN,
    Number.POSITIVE_INFINITY,
    '7 days' as never,
  ]) {
    expect(() => parseKeptMs('keptMs', value, least)).toThrow(refused('rows are needed'));
  }
  expect(parseKeptMs('keptMs', 1_000, least)).toBe(1_000);
  for (const value of [0, 59_999, 25 * HOUR_MS]) {
    expect(() => parseEveryMs(value)).toThrow(refused('from 60000 to 86400000'));
  }
  expect(parseEveryMs()).toBe(HOUR_MS);
});

// ---- the loop, by a clock that is turned by hand

const started: Housekeeping[] = [];
afterEach(async () => {
  await Promise.all(started.splice(0).map((each) => each.stop()));
});

/** A database that nothing is asked of; on a pool of its own unless one is given. */
const databaseOn = (on: object = {}) => ({ kind: 'database', on }) as LocalDatabase<unknown>;

interface Sleep {
  delayMs: number;
  wake(): void;
}

/** What a chore does in its purges, one after the other: numbers of rows, or what it throws. */
function choreOf(purges: (number[] | Error)[], database = databaseOn()) {
  const news: HousekeepingNews[] = [];
  const sleeps: Sleep[] = [];
  let purged = 0;
  const chore: Chore = {
    database,
    table: 'escrow_barrier',
    everyMs: HOUR_MS,
    async *portions() {
      const next = purges[purged++] ?? [];
      if (next instanceof Error) throw next;
      yield* next;
    },
    tell: (said) => void news.push(said),
  };
  const deps = {
    now: () => 0,
    random: () => 0.5,
    sleep: (delayMs: number, signal: AbortSignal) =>
      new Promise<boolean>((resolve) => {
        if (signal.aborted) resolve(false);
        signal.addEventListener('abort', () => resolve(false));
        sleeps.push({ delayMs, wake: () => resolve(true) });
      }),
  };
  const start = (mode: 'keep' | 'replace' = 'keep') => {
    const housekeeping = keepHouse(chore, mode, deps);
    started.push(housekeeping);
    return housekeeping;
  };
  return {
    start,
    news,
    sleeps,
    purges: () => purged,
    /** Ends the sleep that it is in, and waits for the next one. */
    async wake() {
      const before = sleeps.length;
      sleeps.at(-1)?.wake();
      await until('it sleeps again', () => sleeps.length > before);
      return sleeps.at(-1)?.delayMs;
    },
  };
}

test('it waits, purges portion by portion, says once that it does, and waits again', async () => {
  const chore = choreOf([[1_000, 7], [0]]);
  chore.start();
  expect(chore.sleeps.map(({ delayMs }) => delayMs)).toEqual([10 * MINUTE_MS]);
  expect(chore.news).toEqual([]);
  expect(await chore.wake()).toBe(100);
  expect(chore.news).toEqual([{ news: 'on' }]);
  expect(await chore.wake()).toBe(100);
  expect(await chore.wake()).toBe(HOUR_MS);
  expect(await chore.wake()).toBe(100);
  expect(await chore.wake()).toBe(HOUR_MS);
  expect(chore.news).toEqual([{ news: 'on' }]);
});

test('a failure is told once, and it goes on', async () => {
  const chore = choreOf([away, away, away, [1]]);
  chore.start();
  expect([await chore.wake(), await chore.wake(), await chore.wake()]).toEqual([
    15_000,
    HOUR_MS,
    HOUR_MS,
  ]);
  expect(chore.news).toEqual([{ news: 'failed', error: away }]);
  await chore.wake();
  expect(chore.news.at(-1)).toEqual({ news: 'on' });
});

test('stop waits for the portion under way, and no other follows', async () => {
  let finish = (_rows: number) => {};
  const chore = choreOf([]);
  const portion = new Promise<number>((resolve) => {
    finish = resolve;
  });
  let begun = 0;
  const housekeeping = keepHouse(
    {
      database: databaseOn(),
      table: 'escrow_outbox',
      everyMs: HOUR_MS,
      async *portions() {
        for (;;) {
          begun += 1;
          yield await portion;
        }
      },
      tell: () => {},
    },
    'keep',
    { now: () => 0, random: () => 0, sleep: async (_, signal) => !signal.aborted },
  );
  expect(chore.purges()).toBe(0);
  await until('a portion is under way', () => begun === 1);
  let isStopped = false;
  const stopping = housekeeping.stop().then(() => {
    isStopped = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(isStopped).toBe(false);
  finish(1_000);
  await stopping;
  expect(begun).toBe(1);
});

test('a table of a pool is kept once, by whatever adapter, until it is stopped or has ended', async () => {
  const pool = {};
  const first = choreOf([new Error('Pool is closed.')], databaseOn(pool));
  const second = choreOf([], databaseOn(pool));
  const housekeeping = first.start();
  expect(second.start()).toBe(housekeeping);
  expect(second.sleeps).toEqual([]);
  // Another pool is another house.
  const other = choreOf([]);
  other.start();
  expect(other.sleeps).toHaveLength(1);
  // It ends by itself, and may be begun anew.
  first.sleeps.at(-1)?.wake();
  await housekeeping.stop();
  expect(first.news).toEqual([]);
  second.start();
  expect(second.sleeps).toHaveLength(1);
});

test('settings of somebody replace those that nobody gave, and stay', async () => {
  const database = databaseOn();
  const byDefault = choreOf([], database);
  const asked = choreOf([], database);
  byDefault.start('keep');
  const housekeeping = asked.start('replace');
  expect(asked.sleeps).toHaveLength(1);
  byDefault.sleeps.at(-1)?.wake();
  expect(byDefault.start('keep')).toBe(housekeeping);
  await new Promise((resolve) => setImmediate(resolve));
  expect([byDefault.purges(), byDefault.sleeps.length]).toEqual([0, 1]);
});

// ---- statements

test('a row is deleted by its key, and values stand in the order of the keys', () => {
  const rows = {
    table: 'escrow_t',
    key: [
      { column: 'a', value: 'unhex(?)' },
      { column: 'b', value: '?' },
    ],
    count: 2,
    guard: "state = 'sent'",
  };
  expect(deleteRowsSql('mysql', rows)).toBe(
    "delete stored from (select unhex(?) as a, ? as b union all select unhex(?), ?) as chosen\nstraight_join escrow_t as stored force index (primary) on stored.a = chosen.a and stored.b = chosen.b where state = 'sent'",
  );
  for (const dialect of ['mysql', 'postgres', 'sqlite'] as const) {
    expect(deleteRowsSql(dialect, rows).match(/\?/g)).toHaveLength(4);
  }
});

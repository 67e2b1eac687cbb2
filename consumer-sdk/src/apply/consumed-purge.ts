import type {
  Dialect,
  Executor,
  Housekeeping,
  HousekeepingNews,
  LocalDatabase,
} from '@escrowmq/database';
import {
  type DatabaseInput,
  databaseOf,
  deleteRowsSql,
  keepHouse,
  PORTION_ROWS_MAX,
  parseEveryMs,
  repeatedSession,
  rowsOf,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { causedBy } from '../cause.js';
import { logTo } from '../default-log.js';
import type { Log } from '../events.js';
import { INTEGER, NOW_MS, NUMBER_OUT, TABLE_LIMITS, TEXT } from './tables.js';

const DAY_MS = 24 * 60 * 60 * 1000;

/**
 * A message may come again for as long as its broker knows it: 30 days of tombstones after it was
 * finished. A row that goes earlier lets a late repeat be applied twice.
 */
export const REPEATS_MS_MAX = 30 * DAY_MS;

/** A week is the margin. */
export const CONSUMED_KEPT_MS = REPEATS_MS_MAX + 7 * DAY_MS;

/** How the table is to be kept, parsed. */
interface Keeping {
  keptMs: number;
  everyMs: number;
  log: Log;
}

/** @param keeping what somebody asked for: it replaces what runs. @default begins only where nothing runs */
export function keepConsumed(database: LocalDatabase<unknown>, keeping?: Keeping): Housekeeping {
  const { keptMs, everyMs, log } = keeping ?? {
    keptMs: CONSUMED_KEPT_MS,
    everyMs: parseEveryMs(),
    log: logTo(undefined),
  };
  const table = 'escrow_consumed';
  const tell = (news: HousekeepingNews) =>
    log(
      news.news === 'on'
        ? { event: 'housekeepingOn', table, keptMs, everyMs }
        : { event: 'housekeepingFailed', table, ...causedBy(news.error) },
    );
  return keepHouse(
    { database, table, everyMs, portions: () => portions(database, keptMs), tell },
    keeping === undefined ? 'keep' : 'replace',
  );
}

/**
 * Deletes the rows of messages applied longer ago than that, a thousand at a time.
 * `ensureConsumedTable` and `startHousekeeping` do it by themselves. Less than the broker's 30 days risks
 * applying twice.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @param olderThanMs by the database's clock @default 37 days
 * @returns how many rows were found and deleted
 * @throws {EscrowError} INVALID_CONFIGURATION when `olderThanMs` is not a whole number from 0 on
 */
export async function purgeConsumed(
  database: DatabaseInput,
  olderThanMs: number = CONSUMED_KEPT_MS,
): Promise<number> {
  if (!Number.isSafeInteger(olderThanMs) || olderThanMs < 0) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `olderThanMs must be a whole number of ms from 0 on, got ${olderThanMs}`,
    );
  }
  return rowsOf(portions(databaseOf(database), olderThanMs));
}

const selectNow = (dialect: Dialect) => `select ${NUMBER_OUT[dialect](NOW_MS[dialect])} as ms`;

/** The group that comes after one, by the primary key. */
const selectGroup = (dialect: Dialect) =>
  `select min(consumer_group) as name from escrow_consumed where consumer_group > ${TEXT[dialect]}`;

/** Of a group, two ids, a time: the rows between the ids, and which of them are as old as that. */
const selectRows = (dialect: Dialect) =>
  `select message_id as id, case when consumed_at < ${INTEGER[dialect]} then '1' else '0' end as aged
from escrow_consumed
where consumer_group = ${TEXT[dialect]} and message_id > ${TEXT[dialect]} and message_id < ${TEXT[dialect]}
order by message_id limit ${PORTION_ROWS_MAX}`;

/** A text as a value of the primary key: as its columns are, or their index would be of no use. */
const KEY: Record<Dialect, string> = {
  ...TEXT,
  mysql: 'convert(? using ascii) collate ascii_bin',
};

async function* portions(
  database: LocalDatabase<unknown>,
  olderThanMs: number,
): AsyncGenerator<number, void> {
  const { dialect } = database;
  const before = (await nowIn(database)) - olderThanMs;
  for (let group = ''; ; ) {
    const next = await database.session(
      (executor) => executor.select(selectGroup(dialect), { name: 'text or null' }, [group]),
      TABLE_LIMITS,
    );
    if (next[0]?.name === undefined) return;
    group = next[0].name;
    yield* portionsOfGroup(database, group, before);
  }
}

async function nowIn(database: LocalDatabase<unknown>): Promise<number> {
  const [clock] = await database.session(
    (executor) => executor.select(selectNow(database.dialect), { ms: 'number' }),
    TABLE_LIMITS,
  );
  if (clock !== undefined) return clock.ms;
  throw new EscrowError('INVALID_CONFIGURATION', `${database.layer} gave no row for the time`);
}

/**
 * Walks through the ids of a group up to those that were made at `before`. An id is older than its
 * row: for messages that were delayed, by as much as that. A clock that was ahead when it made an id
 * only makes its row go later.
 */
async function* portionsOfGroup(
  database: LocalDatabase<unknown>,
  group: string,
  before: number,
): AsyncGenerator<number, void> {
  const { dialect } = database;
  const end = firstIdOf(before);
  for (let last = ''; ; ) {
    const portion = async (executor: Executor) => {
      const values = [String(before), group, last, end];
      const columns = { id: 'text', aged: 'text' } as const;
      const found = await executor.select(selectRows(dialect), columns, values);
      const ids = found.filter(({ aged }) => aged === '1').map(({ id }) => id);
      if (ids.length > 0) {
        await executor.execute(
          deleteConsumedSql(dialect, ids.length),
          ids.flatMap((id) => [group, id]),
        );
      }
      return { found, ids };
    };
    const { found, ids } = await repeatedSession(database, portion, TABLE_LIMITS);
    yield ids.length;
    const furthest = found.at(-1);
    if (furthest === undefined || found.length < PORTION_ROWS_MAX) return;
    last = furthest.id;
  }
}

const deleteConsumedSql = (dialect: Dialect, count: number): string =>
  deleteRowsSql(dialect, {
    table: 'escrow_consumed',
    key: [
      { column: 'consumer_group', value: KEY[dialect] },
      { column: 'message_id', value: KEY[dialect] },
    ],
    count,
  });

/** How the ids begin that were made at that time: with its ms, in the 48 bits of a UUIDv7. */
function firstIdOf(time: number): string {
  const hex = Math.max(0, time).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}`;
}

import type { Dialect, Executor, LocalDatabase } from '@escrowmq/database';
import { type DatabaseInput, databaseOf, ensureTable, repeatedSession } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { INTEGER, NOW_MS, NUMBER_OUT, TABLE_LIMITS, TEXT, times } from './tables.js';

/**
 * The table behind `once`, in the consumer's own database: which messages each consumer group has
 * applied.
 *
 * Ids are ASCII and compared byte by byte: under a common collation `abc` and `ABC` would be one
 * message, and the second would be lost as a duplicate. The primary key grows at its end, because
 * message ids begin with the time. That is also what a purge finds old rows by: an index on
 * `consumed_at` would be written with every message. Times are UTC milliseconds of the database: one
 * clock for writing and for purging.
 */
const CREATE: Record<Dialect, readonly string[]> = {
  mysql: [
    `create table if not exists escrow_consumed (
  consumer_group varchar(64) character set ascii collate ascii_bin not null,
  message_id varchar(64) character set ascii collate ascii_bin not null,
  consumed_at bigint not null comment 'UTC milliseconds of this database',
  primary key (consumer_group, message_id)
) engine = InnoDB`,
  ],
  postgres: [
    `create table if not exists escrow_consumed (
  consumer_group text collate "C" not null,
  message_id text collate "C" not null,
  consumed_at bigint not null,
  primary key (consumer_group, message_id)
)`,
  ],
  sqlite: [
    `create table if not exists escrow_consumed (
  consumer_group text not null,
  message_id text not null,
  consumed_at integer not null,
  primary key (consumer_group, message_id)
) without rowid`,
  ],
};

/**
 * The statements that create the table of `once`, by dialect, for a migration. It must stand in the
 * database (on PostgreSQL: in the schema that the search path finds first) that the work writes to.
 */
export const CONSUMED_TABLE_SQL: Readonly<Record<Dialect, string>> = {
  mysql: CREATE.mysql.join(';\n'),
  postgres: CREATE.postgres.join(';\n'),
  sqlite: CREATE.sqlite.join(';\n'),
};

/** Of as many pairs of a group and an id. Plain: a duplicate is an error, and so is any other trouble. */
export function insertConsumedSql(dialect: Dialect, count: number): string {
  const row = `(${TEXT[dialect]}, ${TEXT[dialect]}, ${NOW_MS[dialect]})`;
  return `insert into escrow_consumed (consumer_group, message_id, consumed_at) values ${times(count, row)}`;
}

/** Of a group and an id: what every message needs, made once. */
export const INSERT_CONSUMED: Readonly<Record<Dialect, string>> = {
  mysql: insertConsumedSql('mysql', 1),
  postgres: insertConsumedSql('postgres', 1),
  sqlite: insertConsumedSql('sqlite', 1),
};

/** Of the two that follow. */
export const CONSUMED_COLUMNS = { id: 'text' } as const;

/** Of a group and as many ids: those that are there. */
export function selectConsumedSql(dialect: Dialect, count: number): string {
  return `select message_id as id from escrow_consumed where consumer_group = ${TEXT[dialect]} and message_id in (${times(count, TEXT[dialect])})`;
}

/** The same, but waits for transactions that are still open, so that it shows what is durable. */
export function lockConsumedSql(dialect: Dialect, count = 1): string {
  const locking = dialect === 'sqlite' ? '' : ' for update';
  return `${selectConsumedSql(dialect, count)}${locking}`;
}

/**
 * Creates `escrow_consumed` where it is missing; changes nothing where it is not, and needs no right to create
 * tables then.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureConsumedTable(database: DatabaseInput): Promise<void> {
  await ensureTable(database, {
    name: 'escrow_consumed',
    columns: ['consumer_group', 'message_id', 'consumed_at'],
    statements: CREATE,
  });
}

export function missingConsumedTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_consumed; create it with ensureConsumedTable(database) or CONSUMED_TABLE_SQL',
    { cause },
  );
}

/**
 * A message may come again for as long as its broker knows it: 30 days of tombstones after it was
 * finished. A row that goes earlier lets a late repeat be applied twice; a week is the margin.
 */
const RETENTION_MS_DEFAULT = 37 * 24 * 60 * 60 * 1000;

/** Rows per statement, so that a purge holds few locks and never for long. */
const PURGE_ROWS_MAX = 1_000;

const selectNow = (dialect: Dialect) => `select ${NUMBER_OUT[dialect](NOW_MS[dialect])} as ms`;

/** The group that comes after one, by the primary key. */
const selectGroup = (dialect: Dialect) =>
  `select min(consumer_group) as name from escrow_consumed where consumer_group > ${TEXT[dialect]}`;

/** Of a group, two ids, a time: the rows between the ids, and which of them are as old as that. */
const selectRows = (dialect: Dialect) =>
  `select message_id as id, case when consumed_at < ${INTEGER[dialect]} then '1' else '0' end as aged
from escrow_consumed
where consumer_group = ${TEXT[dialect]} and message_id > ${TEXT[dialect]} and message_id < ${TEXT[dialect]}
order by message_id limit ${PURGE_ROWS_MAX}`;

/**
 * Deletes the rows of messages applied longer ago than that, a thousand at a time. Call it now and
 * then, from one instance or from many. Less than the broker's 30 days risks applying twice.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @param olderThanMs by the database's clock @default 37 days
 * @returns how many rows were found and deleted
 * @throws {EscrowError} INVALID_CONFIGURATION when `olderThanMs` is not a whole number from 0 on
 * @example setInterval(() => void purgeConsumed(pool), 3_600_000).unref();
 */
export async function purgeConsumed(
  database: DatabaseInput,
  olderThanMs: number = RETENTION_MS_DEFAULT,
): Promise<number> {
  if (!Number.isSafeInteger(olderThanMs) || olderThanMs < 0) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `olderThanMs must be a whole number of ms from 0 on, got ${olderThanMs}`,
    );
  }
  const found = databaseOf(database);
  const { dialect } = found;
  const before = (await nowIn(found)) - olderThanMs;
  let purged = 0;
  for (let group = ''; ; ) {
    const next = await found.session(
      (executor) => executor.select(selectGroup(dialect), { name: 'text or null' }, [group]),
      TABLE_LIMITS,
    );
    if (next[0]?.name === undefined) return purged;
    group = next[0].name;
    purged += await purgeGroup(found, group, before);
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
async function purgeGroup(
  database: LocalDatabase<unknown>,
  group: string,
  before: number,
): Promise<number> {
  const { dialect } = database;
  const end = firstIdOf(before);
  let purged = 0;
  for (let last = ''; ; ) {
    const portion = async (executor: Executor) => {
      const values = [String(before), group, last, end];
      const columns = { id: 'text', aged: 'text' } as const;
      const found = await executor.select(selectRows(dialect), columns, values);
      const ids = found.filter(({ aged }) => aged === '1').map(({ id }) => id);
      if (ids.length > 0) {
        await executor.execute(
          `delete from escrow_consumed where consumer_group = ${TEXT[dialect]} and message_id in (${times(ids.length, TEXT[dialect])})`,
          [group, ...ids],
        );
      }
      purged += ids.length;
      return found;
    };
    const rows = await repeatedSession(database, portion, TABLE_LIMITS);
    const furthest = rows.at(-1);
    if (furthest === undefined || rows.length < PURGE_ROWS_MAX) return purged;
    last = furthest.id;
  }
}

/** How the ids begin that were made at that time: with its ms, in the 48 bits of a UUIDv7. */
function firstIdOf(time: number): string {
  const hex = Math.max(0, time).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}`;
}

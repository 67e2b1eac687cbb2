import type { Dialect } from '@escrowmq/database';
import {
  type DatabaseInput,
  databaseOf,
  type EnsureOptions,
  ensureTable,
  parseEnsureOptions,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { keepConsumed } from './consumed-purge.js';
import { NOW_MS, TEXT, times } from './tables.js';

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
 * From then on this process deletes rows of messages that can't come again, as `startHousekeeping` does.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureConsumedTable(
  database: DatabaseInput,
  options: EnsureOptions = {},
): Promise<void> {
  const { housekeeping } = parseEnsureOptions(options, 'ensureConsumedTable');
  await ensureTable(database, {
    name: 'escrow_consumed',
    columns: ['consumer_group', 'message_id', 'consumed_at'],
    statements: CREATE,
  });
  if (housekeeping) keepConsumed(databaseOf(database));
}

export function missingConsumedTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_consumed; create it with ensureConsumedTable(database) or CONSUMED_TABLE_SQL',
    { cause },
  );
}

import type { ClaimOn, Dialect, SqlValue } from '@escrowmq/database';
import { type DatabaseInput, databaseOf } from '@escrowmq/database';
import type { CompensationRequest } from '@escrowmq/protocol';
import { EscrowError } from '@escrowmq/protocol';
import { idValue } from '../local/barrier-sql.js';

/**
 * The table in the producer's own database by which a compensation is run once: its primary key
 * admits one row for each transaction, consumer group and message. The row is written by the
 * transaction that compensates, with a plain INSERT whose duplicate says that it is done.
 */
interface CompensationSql {
  createTable: string;
  /** Of an id, a group and the number of a message. */
  insert: string;
  /** Of the same; waits for whoever is writing it, so that it shows what is durable. */
  lock: string;
}

const SQL: Record<Dialect, CompensationSql> = {
  mysql: {
    createTable: `create table if not exists escrow_compensated (
  transaction_id binary(16) not null,
  consumer_group varchar(64) character set ascii collate ascii_bin not null,
  message_number tinyint unsigned not null,
  created_at datetime(3) not null comment 'UTC',
  primary key (transaction_id, consumer_group, message_number)
) engine = InnoDB`,
    insert: `insert into escrow_compensated (transaction_id, consumer_group, message_number, created_at)
values (unhex(?), ?, ?, utc_timestamp(3))`,
    lock: `select 1 as done from escrow_compensated
where transaction_id = unhex(?) and consumer_group = ? and message_number = ? for update`,
  },
  postgres: {
    createTable: `create table if not exists escrow_compensated (
  transaction_id uuid not null,
  consumer_group text not null,
  message_number smallint not null,
  created_at timestamptz not null default clock_timestamp(),
  primary key (transaction_id, consumer_group, message_number)
)`,
    // The casts name the types for layers that send every value as text.
    insert: `insert into escrow_compensated (transaction_id, consumer_group, message_number)
values (cast(? as uuid), cast(? as text), cast(? as smallint))`,
    lock: `select 1 as done from escrow_compensated
where transaction_id = cast(? as uuid) and consumer_group = cast(? as text)
  and message_number = cast(? as smallint) for update`,
  },
  sqlite: {
    createTable: `create table if not exists escrow_compensated (
  transaction_id text not null,
  consumer_group text not null,
  message_number integer not null,
  created_at integer not null,
  primary key (transaction_id, consumer_group, message_number)
) without rowid`,
    insert: `insert into escrow_compensated (transaction_id, consumer_group, message_number, created_at)
values (?, ?, ?, cast((julianday('now') - 2440587.5) * 86400000 as integer))`,
    lock: `select 1 as done from escrow_compensated
where transaction_id = ? and consumer_group = ? and message_number = ?`,
  },
};

/**
 * The statement that creates the table of compensations, by dialect, for a migration. It must stand
 * in the database (on PostgreSQL: in the schema that the search path finds first) that compensations
 * write to.
 */
export const COMPENSATION_TABLE_SQL: Readonly<Record<Dialect, string>> = {
  mysql: SQL.mysql.createTable,
  postgres: SQL.postgres.createTable,
  sqlite: SQL.sqlite.createTable,
};

const LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };

/**
 * Creates the table of compensations where it is missing. Needs the right to create tables; run
 * `COMPENSATION_TABLE_SQL` in a migration where the service has none.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 */
export async function ensureCompensationTable(database: DatabaseInput): Promise<void> {
  const found = databaseOf(database);
  await found.session((executor) => executor.execute(SQL[found.dialect].createTable), LIMITS);
}

const keyValues = ({ id, consumerGroup, message }: CompensationRequest): SqlValue[] => [
  idValue(id),
  consumerGroup,
  message,
];

/** @throws the layer's error, a duplicate key included */
export async function insertCompensated(
  { executor, dialect }: ClaimOn,
  request: CompensationRequest,
): Promise<void> {
  await executor.execute(SQL[dialect].insert, keyValues(request));
}

/** Whether the row is there and durable. */
export async function isCompensated(
  { executor, dialect }: ClaimOn,
  request: CompensationRequest,
): Promise<boolean> {
  const rows = await executor.execute(SQL[dialect].lock, keyValues(request));
  return rows.length > 0;
}

export function missingCompensationTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_compensated; create it with ensureCompensationTable(database) or COMPENSATION_TABLE_SQL',
    { cause },
  );
}

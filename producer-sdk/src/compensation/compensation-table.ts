import type { ClaimOn, Dialect, SqlValue } from '@escrowmq/database';
import { type DatabaseInput, databaseOf, ensureTable, repeatedSession } from '@escrowmq/database';
import type { CompensationRequest } from '@escrowmq/protocol';
import { EscrowError } from '@escrowmq/protocol';
import { BARRIER_RETENTION_MS } from '../local/barrier.js';
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
  /** Of an id, an age in seconds and a number of rows: those before the id that are as old. */
  selectOld: string;
  /** One row of a list: an id, a group and a number. */
  key: string;
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
    selectOld: `select hex(transaction_id) as id, consumer_group as name, message_number as number from escrow_compensated
where transaction_id < unhex(?) and created_at < utc_timestamp(3) - interval ? second
order by transaction_id limit ?`,
    key: '(unhex(?), ?, ?)',
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
    lock: `select '1' as done from escrow_compensated
where transaction_id = cast(? as uuid) and consumer_group = cast(? as text)
  and message_number = cast(? as smallint) for update`,
    selectOld: `select replace(cast(transaction_id as text), '-', '') as id, consumer_group as name,
  cast(message_number as text) as number from escrow_compensated
where transaction_id < cast(? as uuid)
  and created_at < clock_timestamp() - cast(? as int) * interval '1 second'
order by transaction_id limit cast(? as int)`,
    key: '(cast(? as uuid), cast(? as text), cast(? as smallint))',
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
    selectOld: `select transaction_id as id, consumer_group as name, message_number as number from escrow_compensated
where transaction_id < ?
  and created_at < cast((julianday('now') - 2440587.5) * 86400000 as integer) - ? * 1000
order by transaction_id limit ?`,
    key: '(?, ?, ?)',
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
 * Creates the table of compensations where it is missing. Where it is there, no right to create tables is needed; where
 * it is not and the service has none, run `COMPENSATION_TABLE_SQL` in a migration.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureCompensationTable(database: DatabaseInput): Promise<void> {
  await ensureTable(database, {
    name: 'escrow_compensated',
    columns: ['transaction_id', 'consumer_group', 'message_number', 'created_at'],
    statements: {
      mysql: [SQL.mysql.createTable],
      postgres: [SQL.postgres.createTable],
      sqlite: [SQL.sqlite.createTable],
    },
  });
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
  const rows = await executor.select(SQL[dialect].lock, { done: 'number' }, keyValues(request));
  return rows.length > 0;
}

export function missingCompensationTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_compensated; create it with ensureCompensationTable(database) or COMPENSATION_TABLE_SQL',
    { cause },
  );
}

/** Rows per statement, so that a purge holds few locks and never for long. */
const PURGE_ROWS_MAX = 1_000;

/**
 * Deletes the rows of compensations that were done longer ago than that by the database's clock, a
 * thousand at a time, and returns how many. Run it daily.
 *
 * A call for a transaction that old is not answered any more, so nothing can be done twice: a row is
 * younger than its transaction.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @param olderThanMs milliseconds, at least the `barrierRetentionMs` of the compensation handlers: of
 *   a row purged earlier the broker's next call runs the compensation again. @default 7 days
 * @throws {EscrowError} INVALID_CONFIGURATION when it is less than the default of that, 7 days
 * @example setInterval(() => void purgeCompensations(pool), 24 * 3_600_000).unref();
 */
export async function purgeCompensations(
  database: DatabaseInput,
  olderThanMs: number = BARRIER_RETENTION_MS,
): Promise<number> {
  if (!(olderThanMs >= BARRIER_RETENTION_MS)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `rows of escrow_compensated may be purged after ${BARRIER_RETENTION_MS} ms (barrierRetentionMs) or more, not after ${olderThanMs} ms: the broker may call once more, and without its row a compensation would run twice`,
    );
  }
  const found = databaseOf(database);
  for (let purged = 0; ; ) {
    const rows = await repeatedSession(
      found,
      (executor) => purgeOnce({ executor, dialect: found.dialect }, olderThanMs),
      LIMITS,
    );
    purged += rows;
    if (rows < PURGE_ROWS_MAX) return purged;
  }
}

async function purgeOnce({ executor, dialect }: ClaimOn, olderThanMs: number): Promise<number> {
  // Only the row's own time says that it may go. The id spares the search what is younger, because
  // the primary key begins with it, and an id is older than its row.
  const columns = { id: 'text', name: 'text', number: 'number' } as const;
  const rows = await executor.select(SQL[dialect].selectOld, columns, [
    firstIdOf(Date.now() - olderThanMs),
    Math.ceil(olderThanMs / 1000),
    PURGE_ROWS_MAX,
  ]);
  if (rows.length === 0) return 0;
  const keys = Array(rows.length).fill(SQL[dialect].key).join(', ');
  await executor.execute(
    `delete from escrow_compensated
where (transaction_id, consumer_group, message_number) in (${dialect === 'sqlite' ? 'values ' : ''}${keys})`,
    rows.flatMap(({ id, name, number }) => [id, name, number]),
  );
  return rows.length;
}

/** How the ids begin that were made at that time: with its ms, in the 48 bits of a UUIDv7. */
function firstIdOf(time: number): SqlValue {
  return Math.max(0, Math.floor(time)).toString(16).padStart(12, '0').padEnd(32, '0');
}

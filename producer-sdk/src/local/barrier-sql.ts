import type { Dialect, SqlValue } from '@escrowmq/database';

/**
 * The table in the producer's own database that makes the answer to a check final. Its primary key
 * admits one row per transaction: `commit`, written by the local transaction itself, or `rollback`,
 * written by a check. Ids are compared as bytes, so that no collation can make two of them equal.
 *
 * Every write is a plain INSERT whose duplicate is an error. One that ignored or overwrote the
 * duplicate would let a check and a local transaction both win.
 *
 * Times are those of the database and only ever compared there.
 */
interface BarrierSql {
  /** One statement each. */
  createTable: readonly string[];
  /** Of an id and a decision. */
  insert: string;
  /**
   * The decision and the data, as `storedText` reads them. A locking read, so that the answer is what
   * is durable now, and not what an old snapshot shows.
   */
  read: string;
  /** Of the data and an id. */
  setData: string;
  /** Of an id and data; kept for ever, as it is never old enough to be purged. */
  insertKept: string;
  /** Of an age in seconds and a number of rows. */
  selectOld: string;
  /** An id, as an expression of one value. */
  id: string;
  /** Milliseconds since 1970. */
  selectNow: string;
  /** The data of an id, without a lock. */
  readMark: string;
  /** Of the data, an id and the data again: what is lower becomes that. */
  raiseMark: string;
}

const MYSQL: BarrierSql = {
  createTable: [
    `create table if not exists escrow_barrier (
  transaction_id binary(16) not null,
  decision enum('commit', 'rollback') character set ascii collate ascii_bin not null,
  created_at datetime(3) not null comment 'UTC',
  data mediumtext character set utf8mb4 null comment 'Supplied at commit, for a check to repeat',
  primary key (transaction_id),
  key escrow_barrier_created_at (created_at)
) engine = InnoDB`,
  ],
  insert:
    'insert into escrow_barrier (transaction_id, decision, created_at) values (unhex(?), ?, utc_timestamp(3))',
  // FOR UPDATE and not FOR SHARE, which MariaDB does not have.
  read: 'select decision, hex(data) as data from escrow_barrier where transaction_id = unhex(?) for update',
  // Both ways as hexadecimal digits, which no SQL mode and no driver takes for anything else, and
  // which are the same in the character set of any connection.
  setData:
    'update escrow_barrier set data = convert(unhex(?) using utf8mb4) where transaction_id = unhex(?)',
  insertKept: `insert into escrow_barrier (transaction_id, decision, created_at, data)
values (unhex(?), 'rollback', '9999-12-31', convert(unhex(?) using utf8mb4))`,
  selectOld: `select hex(transaction_id) as id from escrow_barrier
where created_at < utc_timestamp(3) - interval ? second order by created_at limit ?`,
  id: 'unhex(?)',
  selectNow: "select timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000 as ms",
  readMark: 'select hex(data) as data from escrow_barrier where transaction_id = unhex(?)',
  raiseMark: `update escrow_barrier set data = convert(unhex(?) using utf8mb4)
where transaction_id = unhex(?) and data < convert(unhex(?) using utf8mb4)`,
};

const POSTGRES: BarrierSql = {
  createTable: [
    `create table if not exists escrow_barrier (
  transaction_id uuid primary key,
  decision text not null check (decision in ('commit', 'rollback')),
  created_at timestamptz not null default clock_timestamp(),
  data text
)`,
    'create index if not exists escrow_barrier_created_at on escrow_barrier (created_at)',
  ],
  // The casts name the types for layers that send every value as text.
  insert:
    'insert into escrow_barrier (transaction_id, decision) values (cast(? as uuid), cast(? as text))',
  read: `select decision, encode(convert_to(data, 'UTF8'), 'hex') as data from escrow_barrier
where transaction_id = cast(? as uuid) for update`,
  setData: `update escrow_barrier set data = convert_from(decode(cast(? as text), 'hex'), 'UTF8')
where transaction_id = cast(? as uuid)`,
  insertKept: `insert into escrow_barrier (transaction_id, decision, created_at, data)
values (cast(? as uuid), 'rollback', 'infinity', convert_from(decode(cast(? as text), 'hex'), 'UTF8'))`,
  selectOld: `select replace(cast(transaction_id as text), '-', '') as id from escrow_barrier
where created_at < clock_timestamp() - cast(? as int) * interval '1 second'
order by created_at limit cast(? as int)`,
  id: 'cast(? as uuid)',
  selectNow:
    'select cast(cast(extract(epoch from clock_timestamp()) * 1000 as bigint) as text) as ms',
  readMark: `select encode(convert_to(data, 'UTF8'), 'hex') as data from escrow_barrier
where transaction_id = cast(? as uuid)`,
  raiseMark: `update escrow_barrier set data = convert_from(decode(cast(? as text), 'hex'), 'UTF8')
where transaction_id = cast(? as uuid) and data < convert_from(decode(cast(? as text), 'hex'), 'UTF8')`,
};

/** Whole milliseconds since 1970, UTC. */
const SQLITE_NOW = "cast((julianday('now') - 2440587.5) * 86400000 as integer)";

const SQLITE: BarrierSql = {
  createTable: [
    `create table if not exists escrow_barrier (
  transaction_id text primary key,
  decision text not null check (decision in ('commit', 'rollback')),
  created_at integer not null,
  data text
) without rowid`,
    'create index if not exists escrow_barrier_created_at on escrow_barrier (created_at)',
  ],
  insert: `insert into escrow_barrier (transaction_id, decision, created_at) values (?, ?, ${SQLITE_NOW})`,
  read: 'select decision, data from escrow_barrier where transaction_id = ?',
  setData: 'update escrow_barrier set data = ? where transaction_id = ?',
  insertKept: `insert into escrow_barrier (transaction_id, decision, created_at, data)
values (?, 'rollback', 253402214400000, ?)`,
  selectOld: `select transaction_id as id from escrow_barrier
where created_at < ${SQLITE_NOW} - ? * 1000 order by created_at limit ?`,
  id: '?',
  selectNow: `select ${SQLITE_NOW} as ms`,
  readMark: 'select data from escrow_barrier where transaction_id = ?',
  raiseMark: 'update escrow_barrier set data = ? where transaction_id = ? and data < ?',
};

export const BARRIER_SQL: Record<Dialect, BarrierSql> = {
  mysql: MYSQL,
  postgres: POSTGRES,
  sqlite: SQLITE,
};

/** An id as the statements above take it. */
export const idValue = (id: string): SqlValue => id.replaceAll('-', '');

/** A text as the statements above take it. */
export const textValue = (dialect: Dialect, text: string): SqlValue =>
  dialect === 'sqlite' ? text : Buffer.from(text).toString('hex');

/** Of a text as the statements above give it, which may be missing. */
export function storedText(dialect: Dialect, stored: string): string;
export function storedText(dialect: Dialect, stored: string | undefined): string | undefined;
export function storedText(dialect: Dialect, stored: string | undefined): string | undefined {
  if (dialect === 'sqlite' || stored === undefined) return stored;
  return Buffer.from(stored, 'hex').toString();
}

/** Of `read`. */
export const BARRIER_COLUMNS = { decision: 'text', data: 'text or null' } as const;

import { type Dialect, deleteRowsSql } from '@escrowmq/database';

/**
 * The table in the producer's own database that holds what is to be sent: one row per transaction,
 * written by the local transaction itself. Its states:
 *
 * - `unsent`: to be sent once `due_at` has come; whoever wants to send it moves `due_at` ahead first
 * - `sent`: the broker has taken it
 * - `parked`: the broker will never take it as it is; kept for a person to look at
 * - `void`: no messages. Written in place of a local transaction that never committed, so that it
 *   never will: its own INSERT fails on the duplicate
 *
 * Every write of a row is a plain INSERT whose duplicate is an error, as in the barrier. Times are
 * whole milliseconds since 1970, by the database's clock, and only ever compared there.
 */
interface OutboxSql {
  /** One statement each. */
  createTable: readonly string[];
  /** Milliseconds since 1970, as an expression. */
  now: string;
  /** An id, as an expression of one value. */
  id: string;
  /** A text of any characters, as an expression of one value. */
  text: string;
  /** The operation of a row, as `storedText` reads it. */
  operationOut: string;
  /** A whole number, as an expression of one value. */
  number: string;
  /** The id of a row as hexadecimal digits, without dashes. */
  idOut: string;
  /** A whole number, as it is selected: on PostgreSQL as text, which its binary format leaves alone. */
  numberOut(number: string): string;
  /** Behind the table of an UPDATE by ids. */
  byId: string;
  /** Behind a SELECT whose rows are to stay as they are. */
  lock: string;
  /** Behind a SELECT that leaves out what others have locked. */
  skipLocked: string;
}

const STATES = "'unsent', 'sent', 'parked', 'void'";

const MYSQL: OutboxSql = {
  createTable: [
    `create table if not exists escrow_outbox (
  transaction_id binary(16) not null,
  state enum(${STATES}) character set ascii collate ascii_bin not null,
  due_at bigint not null comment 'UTC ms: unsent, when to send it; otherwise since when it is so',
  created_at bigint not null comment 'UTC ms',
  producer_group varchar(64) character set ascii collate ascii_bin not null,
  bytes int not null comment 'Of the operation',
  operation mediumtext character set utf8mb4 not null comment 'Sent to the broker as it is',
  lease_token char(32) character set ascii collate ascii_bin null comment 'Of who sends it now',
  cause text character set utf8mb4 null comment 'Why it is parked',
  primary key (transaction_id),
  key escrow_outbox_due (state, due_at, producer_group, created_at)
) engine = InnoDB`,
  ],
  now: "(timestampdiff(microsecond, '1970-01-01', utc_timestamp(3)) div 1000)",
  id: 'unhex(?)',
  // Both ways as hexadecimal digits, which no SQL mode and no driver takes for anything else, and
  // which are the same in the character set of any connection.
  text: 'convert(unhex(?) using utf8mb4)',
  operationOut: 'hex(operation)',
  number: '?',
  idOut: 'hex(transaction_id)',
  numberOut: (number) => number,
  // By the other index, which a small table may suggest, an UPDATE would wait for the rows of
  // transactions that are still open.
  byId: ' force index (primary)',
  lock: ' for update',
  // Nothing: outside of a transaction a lock would be gone before it is of use, and inside of one
  // REPEATABLE READ would lock the gaps as well, which holds up INSERTs.
  skipLocked: '',
};

const POSTGRES: OutboxSql = {
  createTable: [
    `create table if not exists escrow_outbox (
  transaction_id uuid primary key,
  state text not null check (state in (${STATES})),
  due_at bigint not null,
  created_at bigint not null,
  producer_group text not null,
  bytes int not null,
  operation text not null,
  lease_token text,
  cause text
)`,
    'create index if not exists escrow_outbox_due on escrow_outbox (state, due_at, producer_group, created_at)',
  ],
  now: 'cast(extract(epoch from clock_timestamp()) * 1000 as bigint)',
  // The casts name the types for layers that send every value as text.
  id: 'cast(? as uuid)',
  text: "convert_from(decode(cast(? as text), 'hex'), 'UTF8')",
  operationOut: "encode(convert_to(operation, 'UTF8'), 'hex')",
  number: 'cast(? as bigint)',
  idOut: "replace(cast(transaction_id as text), '-', '')",
  numberOut: (number) => `cast(${number} as text)`,
  byId: '',
  lock: ' for update',
  skipLocked: ' for update skip locked',
};

const SQLITE: OutboxSql = {
  createTable: [
    `create table if not exists escrow_outbox (
  transaction_id text primary key,
  state text not null check (state in (${STATES})),
  due_at integer not null,
  created_at integer not null,
  producer_group text not null,
  bytes integer not null,
  operation text not null,
  lease_token text,
  cause text
) without rowid`,
    'create index if not exists escrow_outbox_due on escrow_outbox (state, due_at, producer_group, created_at)',
  ],
  now: "cast((julianday('now') - 2440587.5) * 86400000 as integer)",
  id: '?',
  text: '?',
  operationOut: 'operation',
  number: '?',
  idOut: 'transaction_id',
  numberOut: (number) => number,
  byId: '',
  lock: '',
  skipLocked: '',
};

const DIALECTS: Record<Dialect, OutboxSql> = { mysql: MYSQL, postgres: POSTGRES, sqlite: SQLITE };

/** The statements on the table; what stands in brackets in a comment are their values, in order. */
export interface OutboxStatements {
  createTable: readonly string[];
  /** [id, producer group, bytes, operation, milliseconds until it is due] */
  insert: string;
  /** [id, producer group] */
  insertVoid: string;
  /** [id]; a locking read, so that the answer is what is durable now. */
  readState: string;
  /** [bytes, operation, id] */
  complete: string;
  /** [producer group, number of rows]; what is due, the oldest first. */
  selectDue: string;
  /** [token, lease in ms, ids]; guarded, so that of several who try one has it. */
  claim(count: number): string;
  /** [token, ids] */
  readClaimed(count: number): string;
  /** [ids]; whatever somebody thought before: the broker has taken it. */
  markSent(count: number): string;
  /** [ms until it is due again, token, ids] */
  putOff(count: number): string;
  /** [cause, id] */
  park: string;
  /** [producer group] */
  count: string;
  /** [producer group, number of rows] */
  selectParked: string;
  /** [ids] */
  unpark(count: number): string;
  /** [state, age in ms, number of rows] */
  selectFinished: string;
  /** [ids]; guarded, and looks at no other row. */
  deleteFinished(count: number): string;
}

export const OUTBOX_STATEMENTS: Readonly<Record<Dialect, OutboxStatements>> = {
  mysql: statementsOf('mysql'),
  postgres: statementsOf('postgres'),
  sqlite: statementsOf('sqlite'),
};

function statementsOf(dialect: Dialect): OutboxStatements {
  const sql = DIALECTS[dialect];
  const { now, id, text, number, idOut, numberOut } = sql;
  const update = `update escrow_outbox${sql.byId} set`;
  const ids = (count: number) => `(${Array(count).fill(id).join(', ')})`;
  return {
    createTable: sql.createTable,
    insert: `insert into escrow_outbox
(transaction_id, producer_group, bytes, operation, state, created_at, due_at)
values (${id}, ?, ?, ${text}, 'unsent', ${now}, ${now} + ${number})`,
    insertVoid: `insert into escrow_outbox
(transaction_id, producer_group, bytes, operation, state, created_at, due_at)
values (${id}, ?, 0, '', 'void', ${now}, ${now})`,
    readState: `select state from escrow_outbox where transaction_id = ${id}${sql.lock}`,
    complete: `${update} bytes = ${number}, operation = ${text} where transaction_id = ${id}`,
    selectDue: `select ${idOut} as id, ${numberOut('bytes')} as bytes from escrow_outbox
where state = 'unsent' and due_at <= ${now} and producer_group = ?
order by due_at limit ${number}${sql.skipLocked}`,
    claim: (count) => `${update} lease_token = ?, due_at = ${now} + ${number}
where transaction_id in ${ids(count)} and state = 'unsent' and due_at <= ${now}`,
    readClaimed: (
      count,
    ) => `select ${idOut} as id, ${sql.operationOut} as operation from escrow_outbox
where lease_token = ? and state = 'unsent' and transaction_id in ${ids(count)}`,
    markSent: (count) => `${update} state = 'sent', due_at = ${now}, lease_token = null
where transaction_id in ${ids(count)} and state in ('unsent', 'parked')`,
    putOff: (count) => `${update} due_at = ${now} + ${number}, lease_token = null
where lease_token = ? and state = 'unsent' and transaction_id in ${ids(count)}`,
    park: `${update} state = 'parked', due_at = ${now}, lease_token = null, cause = ${text}
where transaction_id = ${id} and state = 'unsent'`,
    count: `select state, ${numberOut('count(*)')} as counted,
  ${numberOut(`${now} - min(created_at)`)} as age from escrow_outbox
where state in ('unsent', 'parked') and producer_group = ? group by state`,
    selectParked: `select ${idOut} as id from escrow_outbox
where state = 'parked' and producer_group = ? order by due_at limit ${number}`,
    unpark: (count) => `${update} state = 'unsent', due_at = ${now}, cause = null
where transaction_id in ${ids(count)} and state = 'parked'`,
    selectFinished: `select ${idOut} as id from escrow_outbox
where state = ? and due_at < ${now} - ${number} order by due_at limit ${number}`,
    deleteFinished: (count) =>
      deleteRowsSql(dialect, {
        table: 'escrow_outbox',
        key: [{ column: 'transaction_id', value: id }],
        count,
        guard: "state in ('sent', 'void')",
      }),
  };
}

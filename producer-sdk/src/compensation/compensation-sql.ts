import type { Dialect } from '@escrowmq/database';

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
  /** Of the primary key: how a value of each column is written. */
  key: readonly { column: string; value: string }[];
}

const keyOf = (id: string, group: string, number: string) => [
  { column: 'transaction_id', value: id },
  { column: 'consumer_group', value: group },
  { column: 'message_number', value: number },
];

export const COMPENSATION_SQL: Record<Dialect, CompensationSql> = {
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
    key: keyOf(
      'unhex(?)',
      // Without them the table's own collation would not be that of the value, and its index of no use.
      'convert(? using ascii) collate ascii_bin',
      'cast(? as unsigned)',
    ),
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
    key: keyOf('cast(? as uuid)', 'cast(? as text)', 'cast(? as smallint)'),
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
    key: keyOf('?', '?', '?'),
  },
};

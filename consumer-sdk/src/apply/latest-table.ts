import { type DatabaseInput, type Dialect, ensureTable } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { INTEGER, TEXT } from './tables.js';

/**
 * The table behind `latest`, in the consumer's own database: how new what each consumer group knows
 * about each object is. One row per object.
 *
 * Rows are never purged. A dead letter may be sent again after months; without the row of its object
 * it would pass for new, and overwrite what came after it. A row lives as long as its object, and
 * longer when the object may be created again by a late message.
 *
 * Keys are compared as bytes, so that no collation makes two objects one; on MySQL that takes
 * VARBINARY, because every text there is compared without the spaces at its end.
 */
const CREATE: Record<Dialect, readonly string[]> = {
  mysql: [
    `create table if not exists escrow_latest (
  consumer_group varchar(64) character set ascii collate ascii_bin not null,
  object_key varbinary(255) not null comment 'UTF-8',
  object_time bigint not null comment 'As the messages say it',
  message_id varchar(64) character set ascii collate ascii_bin not null,
  write_token char(36) character set ascii collate ascii_bin not null,
  primary key (consumer_group, object_key)
) engine = InnoDB`,
  ],
  postgres: [
    `create table if not exists escrow_latest (
  consumer_group text collate "C" not null,
  object_key text collate "C" not null,
  object_time bigint not null,
  message_id text not null,
  write_token text not null,
  primary key (consumer_group, object_key)
)`,
  ],
  sqlite: [
    `create table if not exists escrow_latest (
  consumer_group text not null,
  object_key text not null,
  object_time integer not null,
  message_id text not null,
  write_token text not null,
  primary key (consumer_group, object_key)
) without rowid`,
  ],
};

/**
 * The statements that create the table of `latest`, by dialect, for a migration. It must stand in
 * the database (on PostgreSQL: in the schema that the search path finds first) that the work writes
 * to.
 */
export const LATEST_TABLE_SQL: Readonly<Record<Dialect, string>> = {
  mysql: CREATE.mysql.join(';\n'),
  postgres: CREATE.postgres.join(';\n'),
  sqlite: CREATE.sqlite.join(';\n'),
};

/**
 * Creates `escrow_latest` where it is missing; changes nothing where it is not, and needs no right to create
 * tables then.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureLatestTable(database: DatabaseInput): Promise<void> {
  await ensureTable(database, {
    name: 'escrow_latest',
    columns: ['consumer_group', 'object_key', 'object_time', 'message_id', 'write_token'],
    statements: CREATE,
  });
}

export function missingLatestTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_latest; create it with ensureLatestTable(database) or LATEST_TABLE_SQL',
    { cause },
  );
}

/** A business object as its row is found. */
export interface ObjectRow {
  group: string;
  key: string;
}

/** What a message says about it. */
export interface News {
  at: number;
  messageId: string;
  /** Of this very write: the row with it was written by whoever made it. */
  token: string;
}

/**
 * As hexadecimal digits, so that the character set of a connection has no say in it: on one in latin1
 * two keys would become one. What the database itself can't hold, it refuses.
 */
const KEY: Record<Dialect, string> = {
  mysql: 'unhex(?)',
  postgres: "convert_from(decode(cast(? as text), 'hex'), 'UTF8')",
  sqlite: TEXT.sqlite,
};

const keyValue = (dialect: Dialect, key: string): string =>
  dialect === 'sqlite' ? key : Buffer.from(key).toString('hex');

const INSERT =
  'insert into escrow_latest (consumer_group, object_key, object_time, message_id, write_token)';

/**
 * Inserts the row or, when what it says is older, overwrites it; leaves it as it is otherwise. Either
 * way the row is locked, once whoever holds it has ended, and guarded by what is durable by then.
 */
export function writeNews(
  dialect: Dialect,
  { group, key }: ObjectRow,
  { at, messageId, token }: News,
): { sql: string; values: string[] } {
  const time = String(at);
  const inserted = [group, keyValue(dialect, key), time, messageId, token];
  const row = `${INSERT} values (${TEXT[dialect]}, ${KEY[dialect]}, ${INTEGER[dialect]}, ${TEXT[dialect]}, ${TEXT[dialect]})`;
  if (dialect === 'mysql') {
    const isLater = `object_time < ${INTEGER.mysql}`;
    return {
      // The time comes last: some servers show an assignment to those after it, and some do not.
      sql: `${row} on duplicate key update
message_id = if(${isLater}, ?, message_id),
write_token = if(${isLater}, ?, write_token),
object_time = if(${isLater}, ${INTEGER.mysql}, object_time)`,
      values: [...inserted, time, messageId, time, token, time, time],
    };
  }
  return {
    sql: `${row} on conflict (consumer_group, object_key) do update
set object_time = excluded.object_time, message_id = excluded.message_id, write_token = excluded.write_token
where escrow_latest.object_time < excluded.object_time`,
    values: inserted,
  };
}

/** Of `readRow`. */
export const ROW_COLUMNS = { message: 'text', token: 'text' } as const;

/** A locking read, so that it shows what is durable, or was written on this connection. */
export function readRow(
  dialect: Dialect,
  { group, key }: ObjectRow,
): { sql: string; values: string[] } {
  const locking = dialect === 'sqlite' ? '' : ' for update';
  return {
    sql: `select message_id as message, write_token as token from escrow_latest where consumer_group = ${TEXT[dialect]} and object_key = ${KEY[dialect]}${locking}`,
    values: [group, keyValue(dialect, key)],
  };
}

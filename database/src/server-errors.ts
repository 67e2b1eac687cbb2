import { attempt } from '@escrowmq/protocol';

/**
 * What a database server said, whoever passes it on. Drivers give the server's own number or code;
 * query builders pass that error on or wrap it, each in its own way, so it is looked for where they
 * put it.
 */
export type Meaning =
  | 'duplicate key'
  | 'no such table'
  /** Somebody else holds the lock: a transaction that is still open. */
  | 'locked'
  | 'deadlock'
  /** Somebody else changed what this transaction had read before: PostgreSQL above READ COMMITTED. */
  | 'not serializable'
  /** Of a savepoint, or of anything else that needs an open transaction. */
  | 'no open transaction'
  | 'read-only'
  /** The server answered; what, does not matter here. */
  | 'other';

/** Where layers keep the error they wrap: Node, Sequelize (twice), TypeORM, Prisma. */
const WRAPPED_IN = ['cause', 'original', 'parent', 'driverError', 'meta', 'driverAdapterError'];
/** No layer wraps deeper; a cycle ends as well. */
const DEPTH_MAX = 6;

/** `undefined` for everything that no server said: a lost connection, a limit, a bug. */
export function meaningOf(error: unknown): Meaning | undefined {
  // A callback may throw what can't be looked at: no server said that.
  return attempt(() => search(error, DEPTH_MAX), undefined);
}

/** True when the server answered, so that the connection is there and its state is known. */
export function isAnswered(error: unknown): boolean {
  return meaningOf(error) !== undefined;
}

function search(error: unknown, depth: number): Meaning | undefined {
  if (typeof error !== 'object' || error === null || depth === 0) return undefined;
  const found = ofMysql(error) ?? ofSqlite(error) ?? ofPostgres(error) ?? ofLayer(error);
  if (found !== undefined) return found;
  const fields = error as Record<string, unknown>;
  for (const name of WRAPPED_IN) {
    const inner = search(fields[name], depth - 1);
    if (inner !== undefined) return inner;
  }
  return undefined;
}

/** Numbers of the server, the same on MySQL and MariaDB. */
const MYSQL: Record<number, Meaning> = {
  1062: 'duplicate key',
  1146: 'no such table',
  1205: 'locked',
  1213: 'deadlock',
  1290: 'read-only',
  1305: 'no open transaction',
  1792: 'read-only',
  1836: 'read-only',
};

/**
 * The server ends the connection: at its shutdown, or because somebody killed it (MariaDB, MySQL) or
 * it was idle for too long.
 */
const MYSQL_CONNECTION_LOST = new Set([1053, 1927, 3169, 4031]);
/** Numbers that MariaDB's connector gives to what it says itself. */
const MARIADB_CLIENT = 45_000;

function ofMysql(error: object): Meaning | undefined {
  // What mysql2 itself says (ECONNRESET) has a number too, but no SQL state.
  if ('errno' in error && 'sqlState' in error && typeof error.errno === 'number') {
    if (MYSQL_CONNECTION_LOST.has(error.errno) || error.errno >= MARIADB_CLIENT) return undefined;
    return MYSQL[error.errno] ?? 'other';
  }
  // Prisma's adapter for MariaDB hands on the number as text.
  if ('originalCode' in error && /^\d{4}$/.test(String(error.originalCode))) {
    const code = Number(error.originalCode);
    return MYSQL_CONNECTION_LOST.has(code) ? undefined : (MYSQL[code] ?? 'other');
  }
  return undefined;
}

const POSTGRES: Record<string, Meaning> = {
  '23505': 'duplicate key',
  '42P01': 'no such table',
  '55P03': 'locked',
  '40P01': 'deadlock',
  '40001': 'not serializable',
  '25P01': 'no open transaction',
  '25P02': 'no open transaction',
  '3B001': 'no open transaction',
  '25006': 'read-only',
};
/**
 * The server's last word on a connection: an administrator's command, a crash, a shutdown, a session
 * that was idle for too long; or its first, when it admits nobody (too many connections, no such
 * database, no such user). Codes in 45 are none of PostgreSQL's: MariaDB's connector gives them to a
 * lost connection, and Prisma hands both kinds on in the same way.
 */
const POSTGRES_CONNECTION_LOST = /^(57P0|08|25P03|25P04|28|3D000|45|53300)/;
const SQL_STATE = /^[0-9A-Z]{5}$/;

function ofPostgres(error: object): Meaning | undefined {
  const code =
    'code' in error && 'severity' in error
      ? error.code
      : 'originalCode' in error
        ? error.originalCode
        : undefined;
  if (typeof code !== 'string' || !SQL_STATE.test(code)) return undefined;
  if (POSTGRES_CONNECTION_LOST.test(code)) return undefined;
  return POSTGRES[code] ?? 'other';
}

/** Primary codes of SQLite; an extended code has them in its lower byte. */
const SQLITE_BUSY = 5;
const SQLITE_LOCKED = 6;
const SQLITE_READONLY = 8;
/** Extended codes of a constraint: of the primary key, of a unique index, of the row id. */
const SQLITE_DUPLICATES = new Set([1555, 2067, 2579]);

function ofSqlite(error: object): Meaning | undefined {
  const message = 'message' in error ? String(error.message) : '';
  // node:sqlite gives the number, better-sqlite3 and sqlite3 the name.
  if ('errcode' in error && typeof error.errcode === 'number') {
    if (SQLITE_DUPLICATES.has(error.errcode)) return 'duplicate key';
    return ofSqliteCode(error.errcode % 256, message);
  }
  if (!('code' in error) || typeof error.code !== 'string') return undefined;
  if (!error.code.startsWith('SQLITE_')) return undefined;
  if (/^SQLITE_CONSTRAINT/.test(error.code) && /UNIQUE|PRIMARY/i.test(error.code + message)) {
    return 'duplicate key';
  }
  if (/^SQLITE_(BUSY|LOCKED)/.test(error.code)) return 'locked';
  if (/^SQLITE_READONLY/.test(error.code)) return 'read-only';
  return ofSqliteMessage(message);
}

function ofSqliteCode(primary: number, message: string): Meaning {
  if (primary === SQLITE_BUSY || primary === SQLITE_LOCKED) return 'locked';
  if (primary === SQLITE_READONLY) return 'read-only';
  return ofSqliteMessage(message);
}

/** SQLite has one code for all that is wrong with a statement; its texts have been stable. */
function ofSqliteMessage(message: string): Meaning {
  if (/no such table/i.test(message)) return 'no such table';
  if (/no such savepoint|no transaction is active/i.test(message)) return 'no open transaction';
  return 'other';
}

/** How layers refuse a statement through a transaction that they have ended themselves. */
const LAYER_ENDED = [
  // Knex
  /^Transaction query already complete/,
  // Kysely
  /^Transaction is already (committed|rolled back)/,
  // Sequelize, which rolls back by itself after a deadlock on MySQL
  /^(commit|rollback) has been called on this transaction/,
  // Prisma, after its own timeout as well
  /Transaction already closed/,
];

function ofLayer(error: object): Meaning | undefined {
  if (!('message' in error) || typeof error.message !== 'string') return undefined;
  const { message } = error;
  return LAYER_ENDED.some((pattern) => pattern.test(message)) ? 'no open transaction' : undefined;
}

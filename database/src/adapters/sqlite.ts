import { EscrowError } from '@escrowmq/protocol';
import type { LocalDatabase, LocalTransaction, TransactionLimits } from '../database.js';
import { Deadline } from '../deadline.js';
import { meaningOf } from '../server-errors.js';
import { savepointGuard } from '../transaction-guard.js';
import { noConnection, unavailable } from '../unavailable.js';
import {
  type SqliteConnection,
  selectNow,
  sqliteExecutor,
  watchedConnection,
} from './sqlite-connection.js';
import { Turns } from './turns.js';

export type { SqliteConnection };

/**
 * SQLite through better-sqlite3 or node:sqlite.
 *
 * A function that opens a connection becomes a database, for `producer.transaction` and for checks.
 * The SDK opens one with it and keeps it to itself: on a connection that other code uses as well,
 * that code's statements would slip into the transaction while the callback awaits something. Its
 * busy timeout is set to 0, since a busy wait stops the event loop that the transaction which holds
 * the lock may need; the SDK waits by itself instead. A connection on which you began a transaction
 * becomes that transaction, for `producer.enlist`.
 *
 * Let `open` set the journal mode to WAL unless something speaks against it. Without WAL a COMMIT
 * waits for everybody who reads, and everybody who reads fails while one is under way; it is as safe.
 * `synchronous` is yours as well: below FULL a power failure may take back what was committed after
 * its message was sent.
 *
 * SQLite has one writer at a time. Transactions wait for each other in the order they came, for
 * `connectionTimeoutMs` at most, and so do checks: keep callbacks short.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for anything else, and at the first use where `open`
 *   opens a database in memory: no other connection could ever see its barrier
 * @example
 * const database = fromSqlite(() => {
 *   const connection = new Database('app.db');
 *   connection.pragma('journal_mode = WAL');
 *   return connection;
 * });
 * await producer.transaction(database, messages, async (tx) => {
 *   tx.prepare('insert into account (id) values (?)').run(id);
 * });
 */
export function fromSqlite<C extends SqliteConnection>(open: () => C): LocalDatabase<C>;
export function fromSqlite(connection: SqliteConnection): LocalTransaction;
export function fromSqlite<C extends SqliteConnection>(
  given: (() => C) | C,
): LocalDatabase<C> | LocalTransaction {
  if (typeof given === 'function') return databaseOn(given);
  if (typeof given === 'object' && given !== null && typeof given.prepare === 'function') {
    return {
      kind: 'transaction',
      dialect: 'sqlite',
      layer: 'SQLite',
      executor: sqliteExecutor(given),
    };
  }
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    "fromSqlite takes a function that opens a connection, such as () => new Database('app.db'), or for enlist the connection that you began a transaction on",
  );
}

function databaseOn<C extends SqliteConnection>(open: () => C): LocalDatabase<C> {
  // There is one writer, so one connection is as good as many.
  const turns = new Turns();
  let kept: C | undefined;

  async function inTransaction<T>(
    work: (connection: C) => Promise<T>,
    { connectionTimeoutMs, commitTimeoutMs }: TransactionLimits,
  ): Promise<T> {
    const deadline = new Deadline(connectionTimeoutMs);
    const endTurn = await turns.take(deadline.leftMs, () => notFree(connectionTimeoutMs));
    try {
      kept ??= opened(open);
      const connection = kept;
      try {
        const isBegun = await untilFree(connection, 'begin immediate', deadline);
        if (isBegun !== true) throw notFree(connectionTimeoutMs, isBegun.cause);
        const result = await work(connection);
        const isCommitted = await untilFree(connection, 'commit', new Deadline(commitTimeoutMs));
        if (isCommitted !== true) throw isCommitted.cause;
        return result;
      } catch (error) {
        if (!isUndone(connection)) kept = undefined;
        throw error;
      }
    } finally {
      endTurn();
    }
  }

  return {
    kind: 'database',
    dialect: 'sqlite',
    layer: 'SQLite',
    transaction: (work, limits) =>
      inTransaction((connection) => {
        const executor = sqliteExecutor(connection);
        const { tx, statements } = watchedConnection(connection);
        return work({ tx, executor, guard: savepointGuard(executor), statements });
      }, limits),
    async session(work, limits) {
      try {
        return await inTransaction((connection) => work(sqliteExecutor(connection)), limits);
      } catch (error) {
        throw unavailable(error, 'SQLite');
      }
    },
  };
}

/** @throws {EscrowError} INVALID_CONFIGURATION for a database in memory */
function opened<C extends SqliteConnection>(open: () => C): C {
  const connection = openedBy(open);
  connection.exec('pragma busy_timeout = 0');
  const [main] = selectNow(connection, 'select file from pragma_database_list', {
    file: 'text or null',
  });
  // A database in memory, and a temporary one, have no file.
  if (main?.file) return connection;
  connection.close();
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'the SQLite database is in memory, where no check on another connection and no restart would find its barrier; open one in a file',
  );
}

function openedBy<C extends SqliteConnection>(open: () => C): C {
  try {
    return open();
  } catch (error) {
    throw noConnection(error, 'SQLite');
  }
}

/** The pauses of SQLite's own busy handler, in ms: short at first, as most locks are. */
const BUSY_PAUSES_MS = [1, 2, 5, 10, 15, 20, 25, 25, 25, 50, 50, 100];
const BUSY_PAUSE_MS_MAX = 100;

/**
 * Runs a statement that fails at once while another connection holds the lock it needs, until it
 * does not. Between the attempts the event loop goes on.
 *
 * @returns true, or the last error when the deadline has passed
 */
async function untilFree(
  connection: SqliteConnection,
  sql: string,
  deadline: Deadline,
): Promise<true | { cause: unknown }> {
  for (let failures = 0; ; failures += 1) {
    try {
      connection.exec(sql);
      return true;
    } catch (cause) {
      if (meaningOf(cause) !== 'locked') throw cause;
      const pauseMs = BUSY_PAUSES_MS[failures] ?? BUSY_PAUSE_MS_MAX;
      if (!(await deadline.pause(pauseMs))) return { cause };
    }
  }
}

/** True when the connection is clean; one that is not is closed, which rolls back as well. */
function isUndone(connection: SqliteConnection): boolean {
  try {
    connection.exec('rollback');
    return true;
  } catch (error) {
    // SQLite has rolled back by itself (a full disk), or the callback has ended the transaction.
    if (meaningOf(error) === 'no open transaction') return true;
    close(connection);
    return false;
  }
}

function close(connection: SqliteConnection): void {
  try {
    connection.close();
  } catch {
    // The callback has closed it, or left an iterator open on it. It is not used again either way,
    // and the error that led here says more.
  }
}

function notFree(limitMs: number, cause?: unknown): EscrowError {
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `another transaction held SQLite's write lock for ${Math.round(limitMs)} ms; nothing was written`,
    { cause },
  );
}

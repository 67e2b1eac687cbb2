import { EscrowError } from '@escrowmq/protocol';
import mysql from 'mysql2/promise';
import {
  type Database,
  DuplicateKey,
  marks,
  type RowsToInsert,
  type Sql,
  type SqlValue,
} from '../sql.js';

/**
 * MySQL 8 or MariaDB 10.11 over a pool. Every session is set up the same way: READ COMMITTED,
 * because under REPEATABLE READ a claim's gap locks held up inserts for a second; UTC; a strict
 * SQL mode without NO_BACKSLASH_ESCAPES, which would break the client's escaping of values.
 */
/** `SET … ISOLATION LEVEL` takes no list, so it is a statement of its own. */
const SESSION_STATEMENTS = [
  'set session transaction isolation level read committed',
  `set session time_zone = '+00:00',
     sql_mode = 'STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION',
     innodb_lock_wait_timeout = 5`,
];

/** Measured on two cores: two to four connections saturate batched writes; the rest is for reads. */
const CONNECTIONS_MAX = 10;
const CONNECT_TIMEOUT_MS = 5_000;
/** A statement that takes longer is cut off with its connection, and repeated. */
const STATEMENT_TIMEOUT_MS = 10_000;
const DEADLOCK_ATTEMPTS_MAX = 6;
/** A pool hands out connections that died while idle; the second or third is fresh. */
const CONNECTION_ATTEMPTS_MAX = 3;
const MIGRATION_LOCK_WAIT_S = 60;

const DUPLICATE_ENTRY = 1062;
/** Lock wait timeout and deadlock: InnoDB asks for the transaction to be run again. */
const RUN_AGAIN = new Set([1205, 1213]);
/** Too many connections, shutting down, disk or table full, read-only, killed, timed out. */
const UNAVAILABLE_ERRNO = new Set([
  1021, 1040, 1053, 1114, 1158, 1159, 1160, 1161, 1203, 1290, 1792, 1836, 1927, 3169,
]);
const UNAVAILABLE_CODE =
  /^(ECONN|EPIPE|ETIMEDOUT|ENOTFOUND|EAI_AGAIN|EHOST|ENET|PROTOCOL_|POOL_|HANDSHAKE_)/;

interface MysqlError extends Error {
  code?: string;
  errno?: number;
  fatal?: boolean;
}

const isMysqlError = (error: unknown): error is MysqlError => error instanceof Error;

function kindOf(error: unknown): 'duplicate' | 'runAgain' | 'unavailable' | 'other' {
  if (!isMysqlError(error)) return 'other';
  if (error.errno === DUPLICATE_ENTRY) return 'duplicate';
  if (error.errno !== undefined && RUN_AGAIN.has(error.errno)) return 'runAgain';
  if (error.errno !== undefined && UNAVAILABLE_ERRNO.has(error.errno)) return 'unavailable';
  if (error.fatal === true || UNAVAILABLE_CODE.test(error.code ?? '')) return 'unavailable';
  return /closed state|Pool is closed/.test(error.message) ? 'unavailable' : 'other';
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

/** Repeats `work` while InnoDB asks for it or the connection was lost; bounded. */
async function repeating<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await work();
    } catch (error) {
      const kind = kindOf(error);
      if (kind === 'duplicate') throw new DuplicateKey(String(error), { cause: error });
      if (kind === 'other') throw error;
      const attemptsMax = kind === 'runAgain' ? DEADLOCK_ATTEMPTS_MAX : CONNECTION_ATTEMPTS_MAX;
      if (attempt >= attemptsMax) {
        const code = isMysqlError(error) ? (error.code ?? error.message) : 'unknown';
        throw new EscrowError(
          'STORE_UNAVAILABLE',
          `the MySQL store does not answer (${code}); it was tried ${attempt} times`,
          { cause: error },
        );
      }
      // Jitter, so that the two sides of a deadlock do not meet again.
      await pause(5 + Math.random() * 20 * attempt);
    }
  }
}

interface Queryable {
  query(options: {
    sql: string;
    values: readonly unknown[];
    timeout?: number;
  }): Promise<[unknown, unknown]>;
}

/** Statements on one connection, or on whichever the pool gives. */
function sqlOn(queryable: Queryable, timeoutMs: number | undefined): Sql {
  const timeout = timeoutMs === undefined ? {} : { timeout: timeoutMs };
  async function run(sql: string, values: readonly SqlValue[] = []): Promise<number> {
    const [result] = await queryable.query({ sql, values, ...timeout });
    return (result as mysql.ResultSetHeader).affectedRows;
  }
  return {
    run,
    async all<Row>(sql: string, values: readonly SqlValue[] = []) {
      const [rows] = await queryable.query({ sql, values, ...timeout });
      return rows as Row[];
    },
    async insertRows(insert) {
      if (insert.rows.length > 0) await run(insertText(insert), insert.rows.flat());
    },
  };
}

function insertText({ table, columns, expressions, rows, onDuplicate }: RowsToInsert): string {
  const row = `(${expressions?.join(', ') ?? marks(columns.length)})`;
  const [first = ''] = columns;
  // Not INSERT IGNORE, which would also swallow values that do not fit.
  const ignoring = onDuplicate === 'ignore' ? ` on duplicate key update ${first} = ${first}` : '';
  return `insert into ${table} (${columns.join(', ')}) values ${Array(rows.length)
    .fill(row)
    .join(', ')}${ignoring}`;
}

/** Opens no connection yet; the first statement does. */
export function openMysqlDatabase(url: string): Database {
  const pool = mysql.createPool({
    uri: url,
    connectionLimit: CONNECTIONS_MAX,
    maxIdle: CONNECTIONS_MAX,
    connectTimeout: CONNECT_TIMEOUT_MS,
    charset: 'UTF8MB4_BIN',
    timezone: 'Z',
    enableKeepAlive: true,
  });
  // The promise pool hands on the events of the pool inside, with its callback connections. What is
  // queued here runs before whatever the connection was opened for.
  pool.pool.on('connection', (connection) => {
    for (const sql of SESSION_STATEMENTS) {
      connection.query(sql, (error) => {
        // A session that is not set up as above must not be used.
        if (error) connection.destroy();
      });
    }
  });

  const outside = sqlOn(pool as unknown as Queryable, STATEMENT_TIMEOUT_MS);

  /** The connection goes back exactly once: released after an orderly end, else destroyed. */
  async function onConnection<T>(
    work: (connection: mysql.PoolConnection) => Promise<T>,
  ): Promise<T> {
    const connection = await pool.getConnection();
    try {
      const result = await work(connection);
      connection.release();
      return result;
    } catch (error) {
      if (kindOf(error) === 'unavailable') connection.destroy();
      else
        await connection.query('rollback').then(
          () => connection.release(),
          () => connection.destroy(),
        );
      throw error;
    }
  }

  return {
    dialect: {
      now: 'cast(unix_timestamp(now(3)) * 1000 as signed)',
      skipLocked: 'for update skip locked',
      forUpdate: 'for update',
    },
    all: <Row>(text: string, values?: readonly SqlValue[]) =>
      repeating(() => outside.all<Row>(text, values)),
    run: (text, values) => repeating(() => outside.run(text, values)),
    insertRows: (insert) => repeating(() => outside.insertRows(insert)),
    transaction: (work) =>
      repeating(() =>
        onConnection(async (connection) => {
          await connection.query('start transaction');
          const result = await work(
            sqlOn(connection as unknown as Queryable, STATEMENT_TIMEOUT_MS),
          );
          await connection.query('commit');
          return result;
        }),
      ),
    withMigrationLock: (work) =>
      repeating(() =>
        onConnection(async (connection) => {
          const sql = sqlOn(connection as unknown as Queryable, undefined);
          const [lock] = await sql.all<{ held: number | null }>(
            "select get_lock(concat('escrowmq:', left(database(), 50)), ?) as held",
            [MIGRATION_LOCK_WAIT_S],
          );
          if (lock?.held !== 1) {
            throw new EscrowError(
              'STORE_UNAVAILABLE',
              `another broker has been migrating this database for ${MIGRATION_LOCK_WAIT_S} s`,
            );
          }
          try {
            return await work(sql);
          } finally {
            await sql.all("select release_lock(concat('escrowmq:', left(database(), 50)))");
          }
        }),
      ),
    close: () => pool.end(),
  };
}

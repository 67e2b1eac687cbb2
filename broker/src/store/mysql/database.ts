import { EscrowError } from '@escrowmq/protocol';
import mysql from 'mysql2';
import type { Database, Sql, SqlValue } from '../sql.js';
import { countsByState } from './counts.js';
import { kindOf, repeating } from './errors.js';
import { idLiteral, insertText, withValues } from './literals.js';

/**
 * MySQL 8 or MariaDB 10.11 over a pool. Every session is set up the same way: READ COMMITTED,
 * because under REPEATABLE READ a claim's gap locks held up inserts for a second; UTC; a strict
 * SQL mode without NO_BACKSLASH_ESCAPES, which would break our escaping of values.
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
/** Twice InnoDB's own limit for a lock, which is the longest that a healthy statement waits. */
const STATEMENT_TIMEOUT_MS = 10_000;
const MIGRATION_LOCK_WAIT_S = 60;
/** As entries of an index: 17 ms for 50,000, counted and sorted. As rows, where more is asked, 100 ms. */
const ROWS_SORTED_MAX = 100_000;

/**
 * What the promise resolves with, or ETIMEDOUT. Not the driver's own timeout, whose timer goes on
 * when the connection is lost and keeps the process from its end.
 */
async function within<T>(limitMs: number | undefined, work: Promise<T>): Promise<T> {
  if (limitMs === undefined) return work;
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => {
      const message = `no answer to a statement in ${limitMs} ms`;
      reject(Object.assign(new Error(message), { code: 'ETIMEDOUT' }));
    }, limitMs);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Through the callbacks: the driver's promises take a picture of the stack at every call. */
const query = (connection: mysql.PoolConnection, text: string): Promise<unknown> =>
  new Promise((resolve, reject) => {
    connection.query(text, (error, result) => (error ? reject(error) : resolve(result)));
  });

function sqlOn(connection: mysql.PoolConnection, limitMs: number | undefined): Sql {
  const run = async (text: string) => {
    const result = await within(limitMs, query(connection, text));
    return (result as mysql.ResultSetHeader).affectedRows;
  };
  return {
    run: (sql, values = []) => run(withValues(sql, values)),
    all: async <Row>(sql: string, values: readonly SqlValue[] = []) =>
      (await within(limitMs, query(connection, withValues(sql, values)))) as Row[],
    async insertRows(insert) {
      if (insert.rows.length > 0) await run(insertText(insert));
    },
  };
}

const connectionOf = (pool: mysql.Pool): Promise<mysql.PoolConnection> =>
  new Promise((resolve, reject) => {
    pool.getConnection((error, connection) => (error ? reject(error) : resolve(connection)));
  });

/**
 * Opens no connection yet; the first statement does.
 *
 * @param statementTimeoutMs what takes longer is cut off with its connection, and repeated: a
 * server that stopped answering must not keep the pool's connections
 */
export function openMysqlDatabase(
  url: string,
  statementTimeoutMs: number = STATEMENT_TIMEOUT_MS,
): Database {
  const pool = mysql.createPool({
    uri: url,
    connectionLimit: CONNECTIONS_MAX,
    maxIdle: CONNECTIONS_MAX,
    connectTimeout: CONNECT_TIMEOUT_MS,
    charset: 'UTF8MB4_BIN',
    timezone: 'Z',
    enableKeepAlive: true,
    // Statements come with their values in them; the driver would read each through for marks.
    queryFormat: (text) => text,
  });
  // What is queued here runs before whatever the connection was opened for.
  pool.on('connection', (connection) => {
    for (const sql of SESSION_STATEMENTS) {
      connection.query(sql, (error) => {
        // A session that is not set up as above must not be used.
        if (error) connection.destroy();
      });
    }
  });

  /** The connection goes back exactly once: released after an orderly end, else destroyed. */
  async function onConnection<T>(
    work: (sql: Sql) => Promise<T>,
    limitMs: number | undefined,
  ): Promise<T> {
    const connection = await connectionOf(pool);
    const sql = sqlOn(connection, limitMs);
    try {
      const result = await work(sql);
      connection.release();
      return result;
    } catch (error) {
      if (kindOf(error) === 'unavailable') connection.destroy();
      else
        await sql.run('rollback').then(
          () => connection.release(),
          () => connection.destroy(),
        );
      throw error;
    }
  }

  const alone = <T>(work: (sql: Sql) => Promise<T>): Promise<T> =>
    repeating(() => onConnection(work, statementTimeoutMs));

  return {
    dialect: {
      now: 'cast(unix_timestamp(now(3)) * 1000 as signed)',
      skipLocked: 'for update skip locked',
      forUpdate: 'for update',
      byId: 'force index (primary)',
      byKey: 'force index (primary)',
      byState: () => 'force index (escrow_transaction_due)',
      rowsSortedMax: ROWS_SORTED_MAX,
      inIds: (ids) => ({ list: `in (${ids.map(idLiteral).join(',')})`, values: [] }),
      countsByState,
    },
    all: <Row>(text: string, values?: readonly SqlValue[]) =>
      alone((sql) => sql.all<Row>(text, values)),
    run: (text, values) => alone((sql) => sql.run(text, values)),
    insertRows: (insert) => alone((sql) => sql.insertRows(insert)),
    transaction: (work) =>
      alone(async (sql) => {
        await sql.run('start transaction');
        const result = await work(sql);
        await sql.run('commit');
        return result;
      }),
    withMigrationLock: (work) =>
      repeating(() =>
        onConnection(async (sql) => {
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
          // An ALTER of a large table takes as long as it takes.
        }, undefined),
      ),
    close: () =>
      new Promise((resolve, reject) => {
        pool.end((error) => (error ? reject(error) : resolve()));
      }),
  };
}

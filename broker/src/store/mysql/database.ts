import { EscrowError } from '@escrowmq/protocol';
import mysql from 'mysql2';
import { type Database, RowRefused, type Sql, type SqlValue } from '../sql.js';
import { countsByState } from './counts.js';
import { leavesConnectionUsable, repeating } from './errors.js';
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
/** A statement's text is longer than its values: a backslash or quote is two bytes, a byte two digits. */
const INSERTS_PER_PACKET = 4;
/** Beyond what its text holds, a packet has five bytes; the rest is room for the driver's. */
const PACKET_BYTES_KEPT_FREE = 64;
/** What a server takes at once until it has said so itself: the least that any of them has by default. */
const PACKET_BYTES_AT_FIRST = 1024 * 1024;
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

/** What a session was told when it was set up. It holds as long as the connection. */
interface Session {
  /** `max_allowed_packet`: a longer statement would cost the connection. */
  packetBytesMax: number;
}

interface Opened {
  connection: mysql.PoolConnection;
  session: Session;
  sql: Sql;
}

/** Its statements wait for each other in the driver, so they are sent in one go. */
async function setUp(connection: mysql.PoolConnection): Promise<Session> {
  const [answer] = await Promise.all([
    query(connection, 'select @@max_allowed_packet as bytes'),
    ...SESSION_STATEMENTS.map((sql) => query(connection, sql)),
  ]);
  const [row] = answer as { bytes: number }[];
  return { packetBytesMax: Number(row?.bytes ?? PACKET_BYTES_AT_FIRST) };
}

function refuseBeyond(packetBytesMax: number, text: string): void {
  const bytesMax = packetBytesMax - PACKET_BYTES_KEPT_FREE;
  // A character is three bytes at most, and few texts come near.
  if (text.length * 3 <= bytesMax) return;
  const bytes = Buffer.byteLength(text);
  if (bytes <= bytesMax) return;
  throw new RowRefused(
    'tooLarge',
    `the MySQL store takes ${packetBytesMax} bytes at once (max_allowed_packet), this needs ${bytes}`,
  );
}

function sqlOn(
  connection: mysql.PoolConnection,
  { packetBytesMax, limitMs }: Session & { limitMs: number | undefined },
): Sql {
  const send = async (text: string) => {
    refuseBeyond(packetBytesMax, text);
    return within(limitMs, query(connection, text));
  };
  const run = async (text: string) => ((await send(text)) as mysql.ResultSetHeader).affectedRows;
  return {
    run: (sql, values = []) => run(withValues(sql, values)),
    all: async <Row>(sql: string, values: readonly SqlValue[] = []) =>
      (await send(withValues(sql, values))) as Row[],
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
  const sessions = new WeakMap<mysql.PoolConnection, Promise<Session>>();
  /** As the newest session has it; the setting may change while the broker runs. */
  let packetBytesMax = PACKET_BYTES_AT_FIRST;
  // What is queued here runs before whatever the connection was opened for.
  pool.on('connection', (connection) => {
    const session = setUp(connection);
    sessions.set(connection, session);
    session.then(
      (told) => {
        packetBytesMax = told.packetBytesMax;
      },
      // Told to whoever opened the connection, and waits for its session.
      () => undefined,
    );
  });

  /**
   * A connection with its session set up as above; one that is not must not be used, and neither one
   * from before the server's setting changed.
   */
  async function open(limitMs: number | undefined): Promise<Opened> {
    for (;;) {
      const connection = await connectionOf(pool);
      try {
        const session = await within(limitMs, sessions.get(connection) ?? setUp(connection));
        if (session.packetBytesMax >= packetBytesMax) {
          return { connection, session, sql: sqlOn(connection, { ...session, limitMs }) };
        }
      } catch (error) {
        connection.destroy();
        throw error;
      }
      connection.destroy();
    }
  }

  /**
   * What is too large for a session may fit by now: somebody has raised the limit, which a session
   * never learns. Then its kind is replaced, and the work run again.
   */
  async function orOutdated(error: unknown, { session, sql }: Opened): Promise<unknown> {
    if (!(error instanceof RowRefused)) return error;
    try {
      const [row] = await sql.all<{ bytes: number }>('select @@global.max_allowed_packet as bytes');
      const bytes = Number(row?.bytes ?? 0);
      if (bytes <= session.packetBytesMax) return error;
      packetBytesMax = bytes;
      const message = 'max_allowed_packet has been raised';
      return Object.assign(new Error(message), { code: 'PROTOCOL_SESSION_OUTDATED' });
    } catch {
      return error;
    }
  }

  /**
   * The connection goes back exactly once: released after an orderly end, else destroyed. After an
   * error that is when a rollback has made sure of what the next one finds.
   */
  async function onConnection<T>(
    work: (sql: Sql) => Promise<T>,
    limitMs: number | undefined,
  ): Promise<T> {
    const opened = await open(limitMs);
    const { connection, sql } = opened;
    try {
      const result = await work(sql);
      connection.release();
      return result;
    } catch (cause) {
      const error = await orOutdated(cause, opened);
      if (leavesConnectionUsable(error)) {
        await sql.run('rollback').then(
          () => connection.release(),
          () => connection.destroy(),
        );
      } else connection.destroy();
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
      tableNamed:
        'select 1 from information_schema.tables where table_schema = database() and table_name = ?',
    },
    insertBytesMax: () => Math.floor(packetBytesMax / INSERTS_PER_PACKET),
    async caveats({ transactionBytesMax }) {
      // Asked for, so that a session has said it.
      await alone((sql) => sql.all('select 1'));
      const bytesNeeded = 2 * transactionBytesMax;
      if (packetBytesMax >= bytesNeeded) return [];
      return [
        `the MySQL store takes ${packetBytesMax} bytes at once (max_allowed_packet): a transaction that ` +
          `does not fit is refused, although ESCROW_TRANSACTION_BYTES_MAX allows ${transactionBytesMax}; ` +
          `set max_allowed_packet to ${bytesNeeded} or more`,
      ];
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

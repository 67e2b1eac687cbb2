import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromMysql2 } from '@escrowmq/database/mysql2';
import { fromPg } from '@escrowmq/database/pg';
import { fromSqlite } from '@escrowmq/database/sqlite';
import { ensureBarrierTable, ensureOutboxTable } from '@escrowmq/producer';
import { createPool, type Pool, type ResultSetHeader, type RowDataPacket } from 'mysql2/promise';
import pg from 'pg';
import { openSqlite, type SqliteConnection } from '../../broker/src/store/sqlite/driver.js';
import type { Dialect, LocalDatabase } from '../../database/src/database.js';
import { freshMysqlDatabase, freshPostgresDatabase } from './servers.js';

export type Row = Record<string, unknown>;

/** What one suite needs to know of each database that producers use. */
export interface DatabaseKind {
  name: string;
  dialect: Dialect;
  /** A database of the caller's own: a barrier, an outbox, and `account (id)` for business rows. */
  start(): Promise<SuiteDatabase>;
}

export interface SuiteDatabase {
  url: string;
  /** For the code under test, with connections of its own. */
  connect(options?: ConnectOptions): SuiteConnections;
  /** Sends a statement through the handle that a callback got. */
  send(tx: unknown, sql: string): Promise<unknown>;
  /** For what the test itself asks or does, on a connection of its own. */
  observe(sql: string): Promise<Row[]>;
  accounts(): Promise<number[]>;
  barrier(id: string): Promise<string | undefined>;
  /** The state of a row in the outbox. */
  outbox(id: string): Promise<string | undefined>;
  /** How many wait for the lock of a transaction that is open; undefined where nobody can tell. */
  waiting(): Promise<number | undefined>;
  /** Connections with a transaction that is open and does nothing. */
  idleInTransaction(): Promise<number>;
  close(): Promise<void>;
}

export interface ConnectOptions {
  /** @default 4 */
  connections?: number;
  /** Instead of the server's own, for a proxy in between. */
  port?: number;
}

export interface SuiteConnections {
  database: LocalDatabase<unknown>;
  /** Connections that were opened and not closed again. */
  open(): number;
  /** Takes one, so that nobody else has it; gives it back when called. */
  hold(): Promise<() => void>;
}

/**
 * The thread of a transaction that is open, in what InnoDB says of itself. Its table innodb_trx is
 * renewed only when nobody has read it for 100 ms: whoever polls it sees what he saw first.
 */
const OPEN_TRANSACTION = /---TRANSACTION \d+, ACTIVE.*?thread id (\d+)/gs;

const ACCOUNT_TABLE = 'create table account (id integer not null primary key)';

export const MARIADB: DatabaseKind = {
  name: 'MariaDB',
  dialect: 'mysql',
  async start() {
    const url = await freshMysqlDatabase();
    const pools: Pool[] = [];
    const poolOf = ({ connections = 4, port }: ConnectOptions = {}) => {
      const pool = createPool({ uri: withPort(url, port), connectionLimit: connections });
      pools.push(pool);
      return pool;
    };
    const observer = poolOf();
    const observe = async (sql: string): Promise<Row[]> => {
      const [rows] = await observer.query<RowDataPacket[] | ResultSetHeader>(sql);
      return Array.isArray(rows) ? rows : [];
    };
    const database = await filled({
      url,
      observe,
      database: fromMysql2(observer),
      rowOf: (id) => `transaction_id = unhex(replace('${id}', '-', ''))`,
    });
    return {
      ...database,
      connect(options) {
        const pool = poolOf(options);
        let open = 0;
        pool.on('connection', () => {
          open += 1;
        });
        return {
          database: fromMysql2(pool),
          open: () => open,
          async hold() {
            const connection = await pool.getConnection();
            return () => connection.release();
          },
        };
      },
      send: (tx, sql) => (tx as Pick<Pool, 'query'>).query(sql),
      waiting: () =>
        countOf(
          observe,
          `information_schema.processlist where db = database() and info like 'insert into escrow_barrier%'`,
        ),
      async idleInTransaction() {
        const [status] = await observe('show engine innodb status');
        const sleeping = await observe(
          "select id from information_schema.processlist where db = database() and command = 'Sleep'",
        );
        const inTransaction = [...String(status?.Status).matchAll(OPEN_TRANSACTION)].map(
          ([, thread]) => Number(thread),
        );
        return sleeping.filter(({ id }) => inTransaction.includes(Number(id))).length;
      },
      close: async () => {
        await Promise.all(pools.map((pool) => pool.end()));
      },
    };
  },
};

export const POSTGRES: DatabaseKind = {
  name: 'PostgreSQL',
  dialect: 'postgres',
  async start() {
    const url = await freshPostgresDatabase();
    const pools: pg.Pool[] = [];
    const poolOf = ({ connections = 4, port }: ConnectOptions = {}) => {
      const pool = new pg.Pool({ connectionString: withPort(url, port), max: connections });
      // Some tests cut connections that lie idle in it.
      pool.on('error', () => {});
      pools.push(pool);
      return pool;
    };
    const observer = poolOf();
    const observe = async (sql: string): Promise<Row[]> => (await observer.query(sql)).rows;
    const database = await filled({
      url,
      observe,
      database: fromPg(observer),
      rowOf: (id) => `transaction_id = '${id}'`,
    });
    const sessions = 'pg_stat_activity where datname = current_database()';
    return {
      ...database,
      connect(options) {
        const pool = poolOf(options);
        return {
          database: fromPg(pool),
          open: () => pool.totalCount,
          async hold() {
            const client = await pool.connect();
            return () => client.release();
          },
        };
      },
      send: (tx, sql) => (tx as Pick<pg.Pool, 'query'>).query(sql),
      waiting: () =>
        countOf(
          observe,
          `${sessions} and wait_event_type = 'Lock' and query like 'insert into escrow_barrier%'`,
        ),
      idleInTransaction: () =>
        countOf(observe, `${sessions} and state like 'idle in transaction%'`),
      close: async () => {
        await Promise.all(pools.map((pool) => pool.end()));
      },
    };
  },
};

export const SQLITE: DatabaseKind = {
  name: 'SQLite',
  dialect: 'sqlite',
  async start() {
    const folder = mkdtempSync(join(tmpdir(), 'escrowmq-producer-'));
    const url = join(folder, 'app.db');
    const connections: SqliteConnection[] = [];
    const open = () => {
      const connection = openSqlite(url);
      connection.exec('pragma journal_mode = WAL');
      connections.push(connection);
      return connection;
    };
    const observer = open();
    const observe = async (sql: string): Promise<Row[]> => {
      const statement = observer.prepare(sql) as ReturnType<typeof observer.prepare> & {
        readonly reader?: boolean;
      };
      if (statement.reader !== false) return statement.all() as Row[];
      statement.run();
      return [];
    };
    const database = await filled({
      url,
      observe,
      database: fromSqlite(open),
      rowOf: (id) => `transaction_id = replace('${id}', '-', '')`,
    });
    return {
      ...database,
      connect() {
        const own: SqliteConnection[] = [];
        const database = fromSqlite(() => {
          const connection = open();
          own.push(connection);
          return connection;
        });
        return {
          database,
          open: () => own.filter(isOpen).length,
          hold: () => holdTurn(database),
        };
      },
      send: async (tx, sql) => (tx as SqliteConnection).exec(sql),
      waiting: async () => undefined,
      idleInTransaction: async () => connections.filter(isOpen).filter(isInTransaction).length,
      async close() {
        for (const connection of connections.filter(isOpen)) connection.close();
        rmSync(folder, { recursive: true });
      },
    };
  },
};

/** better-sqlite3 and node:sqlite have other names for the same. */
const flag = (connection: SqliteConnection, ...names: string[]) =>
  names.some((name) => Reflect.get(connection, name) === true);
const isOpen = (connection: SqliteConnection) => flag(connection, 'open', 'isOpen');
const isInTransaction = (connection: SqliteConnection) =>
  flag(connection, 'inTransaction', 'isTransaction');

interface Filling {
  url: string;
  observe(sql: string): Promise<Row[]>;
  database: LocalDatabase<unknown>;
  /** A condition that is true for the row of that id. */
  rowOf(id: string): string;
}

/** Makes the tables, and what asks for them in the same words everywhere. */
async function filled({ url, observe, database, rowOf }: Filling) {
  await ensureBarrierTable(database);
  await ensureOutboxTable(database);
  await observe(ACCOUNT_TABLE);
  return {
    url,
    observe,
    async accounts() {
      const rows = await observe('select id from account order by id');
      return rows.map(({ id }) => Number(id));
    },
    async barrier(id: string): Promise<string | undefined> {
      const [row] = await observe(`select decision from escrow_barrier where ${rowOf(id)}`);
      return row === undefined ? undefined : String(row.decision);
    },
    async outbox(id: string): Promise<string | undefined> {
      const [row] = await observe(`select state from escrow_outbox where ${rowOf(id)}`);
      return row === undefined ? undefined : String(row.state);
    },
  };
}

/** There is one connection, and who has the turn has it. */
async function holdTurn(database: LocalDatabase<unknown>): Promise<() => void> {
  let giveBack = () => {};
  const held = new Promise<void>((resolve) => {
    giveBack = resolve;
  });
  await new Promise<void>((resolve, reject) => {
    const limits = { connectionTimeoutMs: 1_000, commitTimeoutMs: 1_000 };
    const work = async () => {
      resolve();
      await held;
    };
    database.session(work, limits).catch(reject);
  });
  return giveBack;
}

async function countOf(observe: SuiteDatabase['observe'], from: string): Promise<number> {
  const [row] = await observe(`select count(*) as counted from ${from}`);
  return Number(row?.counted);
}

function withPort(url: string, port: number | undefined): string {
  if (port === undefined) return url;
  const changed = new URL(url);
  changed.port = String(port);
  return changed.href;
}

import { fromMysql2 } from '@escrowmq/database/mysql2';
import { fromPg, type PgTransaction } from '@escrowmq/database/pg';
import { fromSqlite, type SqliteConnection } from '@escrowmq/database/sqlite';
import { createPool, type PoolConnection, type PoolOptions } from 'mysql2/promise';
import pg from 'pg';
import { openSqlite } from '../producer-layers/better-sqlite3.js';
import type { HostileLayer } from './suite.js';

type Mysql2Tx = Readonly<Pick<PoolConnection, 'execute' | 'query'>>;

/** The example of mysql2's documentation: `:name` in place of `?`. */
function namedFormat(sql: string, values: unknown): string {
  if (typeof values !== 'object' || values === null) return sql;
  return sql.replaceAll(/\?/g, '/* use :name */').replaceAll(/:(\w+)/g, (text, name: string) => {
    const value: unknown = Reflect.get(values, name);
    return value === undefined ? text : String(Number(value));
  });
}

const mysql2 = (name: string, options: PoolOptions): HostileLayer<Mysql2Tx> => ({
  name: `mysql2 with ${name}`,
  engines: ['MariaDB'],
  async open(_engine, url) {
    const pool = createPool({ uri: url, connectionLimit: 4, ...options });
    pool.on('connection', (connection) => {
      void connection.query("set session sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES'");
    });
    return {
      database: fromMysql2(pool),
      insert: async (tx, id) => tx.execute(`insert into account (id) values (${Number(id)})`),
      close: () => pool.end(),
    };
  },
});

export const hostileMysql2 = [
  mysql2('rows as arrays and a queryFormat of its own (U24), in latin1', {
    charset: 'latin1',
    rowsAsArray: true,
    namedPlaceholders: true,
    multipleStatements: true,
    bigNumberStrings: true,
    supportBigNumbers: true,
    dateStrings: true,
    decimalNumbers: true,
    stringifyObjects: true,
    queryFormat: namedFormat,
    // An option of mysql2 that its types lack.
  } as PoolOptions),
  mysql2('tables nested and every value turned into another in utf8', {
    charset: 'utf8',
    nestTables: true,
    typeCast: () => 'something else',
  } as PoolOptions),
  mysql2('bytes for text', { charset: 'binary' }),
];

const pgWith = (name: string, options: Record<string, unknown>): HostileLayer<PgTransaction> => ({
  name: `pg with ${name}`,
  engines: ['PostgreSQL'],
  async open(_engine, url) {
    const pool = new pg.Pool({ connectionString: url, max: 4, ...options });
    return {
      database: fromPg(pool),
      insert: async (tx, id) => tx.query('insert into account (id) values ($1)', [id]),
      close: () => pool.end(),
    };
  },
});

export const hostilePg = [
  pgWith('type parsers that turn every value into another', {
    types: { getTypeParser: () => () => 'something else' },
  }),
  pgWith('values in binary', { binary: true }),
  pgWith('a connection in latin1', { client_encoding: 'LATIN1' }),
];

const sqliteWith = (
  name: string,
  open: (path: string) => SqliteConnection,
): HostileLayer<SqliteConnection> => ({
  name,
  engines: ['SQLite'],
  async open(_engine, url) {
    const opened: SqliteConnection[] = [];
    const openOne = () => {
      const connection = open(url);
      opened.push(connection);
      return connection;
    };
    return {
      database: fromSqlite<SqliteConnection>(openOne),
      insert: async (tx, id) => tx.prepare('insert into account (id) values (?)').run(id),
      async close() {
        for (const connection of opened) connection.close();
      },
    };
  },
});

type OpenBuiltIn = new (path: string, options: object) => SqliteConnection;

const builtIn = process.getBuiltinModule?.('node:sqlite') as
  | { DatabaseSync: OpenBuiltIn }
  | undefined;

export const hostileSqlite = [
  sqliteWith('better-sqlite3 with safe integers', (path) => {
    const connection = openSqlite(path) as unknown as SqliteConnection & {
      defaultSafeIntegers(): void;
    };
    connection.defaultSafeIntegers();
    return connection;
  }),
  ...(builtIn === undefined
    ? []
    : [
        sqliteWith(
          'node:sqlite with rows as arrays and bigints',
          (path) => new builtIn.DatabaseSync(path, { returnArrays: true, readBigInts: true }),
        ),
      ]),
];

import type { LocalDatabase } from '@escrowmq/database';
import { fromMysql2 } from '@escrowmq/database/mysql2';
import { fromPg } from '@escrowmq/database/pg';
import { fromSqlite, type SqliteConnection } from '@escrowmq/database/sqlite';
import { EscrowError } from '@escrowmq/protocol';

/** A database that the command opened by its URL. */
export interface OpenedDatabase {
  database: LocalDatabase<unknown>;
  close(): Promise<void>;
}

/** A pass uses one connection at a time; the others are for marking, counting and purging. */
const CONNECTIONS = 3;

/**
 * Opens a database by its URL, with the driver that is installed beside this package.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION for another kind of URL, or a driver that is missing
 */
export async function openByUrl(url: string): Promise<OpenedDatabase> {
  if (url.startsWith('mysql:')) return openMysql(url);
  if (/^postgres(ql)?:/.test(url)) return openPostgres(url);
  if (url.startsWith('sqlite:')) return openSqlite(url.slice('sqlite:'.length));
  // The URL is not repeated here: it may hold a password.
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'the database must be given as mysql://…, postgres://… or sqlite:<path>',
  );
}

async function openMysql(uri: string): Promise<OpenedDatabase> {
  const { createPool } = await installed('mysql2', () => import('mysql2/promise'));
  const pool = createPool({ uri, connectionLimit: CONNECTIONS });
  return { database: fromMysql2(pool), close: () => pool.end() };
}

async function openPostgres(connectionString: string): Promise<OpenedDatabase> {
  const { default: pg } = await installed('pg', () => import('pg'));
  const pool = new pg.Pool({ connectionString, max: CONNECTIONS });
  // A connection that is lost while nobody uses it; the next one that is needed is a new one.
  pool.on('error', () => undefined);
  return { database: fromPg(pool), close: () => pool.end() };
}

type OpenSqlite = new (path: string) => SqliteConnection;

async function openSqlite(path: string): Promise<OpenedDatabase> {
  const Database = await sqliteDriver();
  const connections: SqliteConnection[] = [];
  const database = fromSqlite(() => {
    const connection = new Database(path);
    connections.push(connection);
    return connection;
  });
  return {
    database,
    async close() {
      for (const connection of connections) connection.close();
    },
  };
}

/** `node:sqlite` where Node has it without a flag (from 22.13), and better-sqlite3 elsewhere. */
async function sqliteDriver(): Promise<OpenSqlite> {
  const builtIn = builtInSqlite();
  if (builtIn !== undefined) return builtIn;
  // By a name in a variable, as it has no types of its own.
  const name = 'better-sqlite3';
  const loaded = await installed(name, () => import(name) as Promise<{ default: OpenSqlite }>);
  return loaded.default;
}

/** Node 22 and 23 warn that `node:sqlite` is experimental; our tests run on it, so we do not. */
function builtInSqlite(): OpenSqlite | undefined {
  const emitWarning = process.emitWarning;
  process.emitWarning = (() => undefined) as typeof process.emitWarning;
  try {
    const found = process.getBuiltinModule('node:sqlite') as
      | { DatabaseSync: OpenSqlite }
      | undefined;
    return found?.DatabaseSync;
  } finally {
    process.emitWarning = emitWarning;
  }
}

async function installed<T>(name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (cause) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `the driver ${name} does not load; install it beside @escrowmq/producer`,
      { cause },
    );
  }
}

import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Dialect } from '@escrowmq/producer';
import { createPool } from 'mysql2/promise';
import { BARRIER_SQL } from '../../../producer-sdk/src/local/barrier-sql.js';
import { freshMysqlDatabase, freshPostgresDatabase } from '../servers.js';
import { openSqlite } from './better-sqlite3.js';
import { pgPool } from './pg-pool.js';

export type EngineName = 'MariaDB' | 'PostgreSQL' | 'SQLite';

/** A connection of the test's own, beside those of the layer. */
export interface Connection {
  query(sql: string): Promise<Record<string, unknown>[]>;
  release(): void;
}

/**
 * A producer's own database: a barrier table, `account (id, phone)`, and `owner (account_id)`, whose
 * reference to an account is looked at by COMMIT only, where the engine has that.
 */
export interface Engine {
  name: EngineName;
  dialect: Dialect;
  url: string;
  query(sql: string): Promise<Record<string, unknown>[]>;
  connect(): Promise<Connection>;
  accounts(): Promise<number[]>;
  /** The decision on record for a transaction. */
  barrier(id: string): Promise<unknown>;
  close(): Promise<void>;
}

interface Driver {
  url: string;
  connect(): Promise<Connection>;
  close(): Promise<void>;
}

const DIALECTS: Record<EngineName, Dialect> = {
  MariaDB: 'mysql',
  PostgreSQL: 'postgres',
  SQLite: 'sqlite',
};

const OPENERS: Record<EngineName, () => Promise<Driver>> = {
  MariaDB: openMariadb,
  PostgreSQL: openPostgres,
  SQLite: openSqliteFile,
};

const OWNER: Record<Dialect, string> = {
  mysql: 'create table owner (account_id int not null)',
  postgres:
    'create table owner (account_id int not null references account (id) deferrable initially deferred)',
  sqlite:
    'create table owner (account_id int not null references account (id) deferrable initially deferred)',
};

const ID: Record<Dialect, (id: string) => string> = {
  mysql: (id) => `unhex('${id.replaceAll('-', '')}')`,
  postgres: (id) => `'${id}'`,
  sqlite: (id) => `'${id.replaceAll('-', '')}'`,
};

export async function startEngine(name: EngineName): Promise<Engine> {
  const dialect = DIALECTS[name];
  const driver = await OPENERS[name]();
  const query = async (sql: string) => {
    const connection = await driver.connect();
    try {
      return await connection.query(sql);
    } finally {
      connection.release();
    }
  };
  for (const sql of [
    ...BARRIER_SQL[dialect].createTable,
    'create table account (id int not null primary key, phone varchar(20))',
    OWNER[dialect],
  ]) {
    await query(sql);
  }
  return {
    name,
    dialect,
    url: driver.url,
    query,
    connect: driver.connect,
    close: driver.close,
    async accounts() {
      const rows = await query('select id from account order by id');
      return rows.map((row) => Number(row.id));
    },
    async barrier(id) {
      const [row] = await query(
        `select decision from escrow_barrier where transaction_id = ${ID[dialect](id)}`,
      );
      return row?.decision;
    },
  };
}

async function openMariadb(): Promise<Driver> {
  const url = await freshMysqlDatabase();
  const pool = createPool({ uri: url, connectionLimit: 4 });
  return {
    url,
    async connect() {
      const connection = await pool.getConnection();
      return {
        async query(sql) {
          const [rows] = await connection.query(sql);
          return Array.isArray(rows) ? (rows as Record<string, unknown>[]) : [];
        },
        release: () => connection.release(),
      };
    },
    close: () => pool.end(),
  };
}

async function openPostgres(): Promise<Driver> {
  const url = await freshPostgresDatabase();
  const pool = pgPool(url);
  return {
    url,
    async connect() {
      const client = await pool.connect();
      return {
        query: async (sql) => (await client.query(sql)).rows ?? [],
        release: () => client.release(),
      };
    },
    close: () => pool.end(),
  };
}

async function openSqliteFile(): Promise<Driver> {
  const folder = mkdtempSync(join(tmpdir(), 'escrow-layers-'));
  const url = join(folder, `${randomBytes(4).toString('hex')}.db`);
  const first = openSqlite(url);
  first.prepare('pragma journal_mode = wal').all();
  return {
    url,
    async connect() {
      const database = openSqlite(url, 0);
      return {
        async query(sql) {
          const statement = database.prepare(sql);
          if (statement.reader) return statement.all() as Record<string, unknown>[];
          statement.run([]);
          return [];
        },
        release: () => void database.close(),
      };
    },
    async close() {
      first.close();
      rmSync(folder, { recursive: true });
    },
  };
}

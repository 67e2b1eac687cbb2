import { fromMysql2 } from '@escrowmq/database/mysql2';
import { fromPg, type PgTransaction } from '@escrowmq/database/pg';
import { fromSqlite, type SqliteConnection } from '@escrowmq/database/sqlite';
import { createPool, type PoolConnection } from 'mysql2/promise';
import { openSqlite } from '../producer-layers/better-sqlite3.js';
import type { EngineName } from '../producer-layers/engine.js';
import type { OpenLayer } from '../producer-layers/layer.js';
import { pgPool } from '../producer-layers/pg-pool.js';

/** What a consumer does its work with: as much of the producers' layers as the suite needs. */
export interface ConsumerLayer<Tx> {
  name: string;
  engines: readonly EngineName[];
  open(engine: EngineName, url: string): Promise<OpenConsumerLayer<Tx>>;
}

export type OpenConsumerLayer<Tx> = Pick<OpenLayer<Tx>, 'database' | 'insert' | 'run' | 'close'>;

/** As many as the pool of `pgPool` has. */
const CONNECTIONS = 4;

type Mysql2Tx = Readonly<Pick<PoolConnection, 'execute' | 'query'>>;

export const mysql2Layer: ConsumerLayer<Mysql2Tx> = {
  name: 'mysql2',
  engines: ['MariaDB'],
  async open(_engine, url) {
    const pool = createPool({ uri: url, connectionLimit: CONNECTIONS });
    return {
      database: fromMysql2(pool),
      insert: async (tx, id) => tx.execute('insert into account (id) values (?)', [id]),
      run: async (tx, sql) => tx.query(sql),
      close: () => pool.end(),
    };
  },
};

export const pgLayer: ConsumerLayer<PgTransaction> = {
  name: 'pg',
  engines: ['PostgreSQL'],
  async open(_engine, url) {
    const pool = pgPool(url);
    return {
      database: fromPg(pool),
      insert: async (tx, id) => tx.query('insert into account (id) values ($1)', [id]),
      run: async (tx, sql) => tx.query(sql),
      close: () => pool.end(),
    };
  },
};

export const sqliteLayer: ConsumerLayer<SqliteConnection> = {
  name: 'better-sqlite3',
  engines: ['SQLite'],
  async open(_engine, url) {
    const opened: SqliteConnection[] = [];
    const open = () => {
      const connection = openSqlite(url) as unknown as SqliteConnection;
      opened.push(connection);
      return connection;
    };
    return {
      database: fromSqlite<SqliteConnection>(open),
      insert: async (tx, id) => tx.prepare('insert into account (id) values (?)').run(id),
      run: async (tx, sql) => tx.prepare(sql).run(),
      async close() {
        for (const connection of opened) connection.close();
      },
    };
  },
};

import { fromDrizzle } from '@escrowmq/database/drizzle';
import { sql } from 'drizzle-orm';
import * as mysqlCore from 'drizzle-orm/mysql-core';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres';
import * as pgCore from 'drizzle-orm/pg-core';
import { createConnection, createPool } from 'mysql2/promise';
import pg from 'pg';
import type { Layer } from './layer.js';
import { pgPool } from './pg-pool.js';

const mysqlAccount = mysqlCore.mysqlTable('account', { id: mysqlCore.int().primaryKey() });
const pgAccount = pgCore.pgTable('account', { id: pgCore.integer().primaryKey() });

const mysqlOn = (url: string) => drizzleMysql({ client: createPool(url) });
const postgresOn = (url: string) => drizzlePostgres({ client: pgPool(url) });

type MysqlTx = Parameters<Parameters<ReturnType<typeof mysqlOn>['transaction']>[0]>[0];
type PostgresTx = Parameters<Parameters<ReturnType<typeof postgresOn>['transaction']>[0]>[0];

export const drizzleMysqlLayer: Layer<MysqlTx> = {
  name: 'Drizzle on mysql2',
  engines: ['MariaDB'],
  async open(_engine, url) {
    const db = mysqlOn(url);
    const single = await createConnection(url);
    return {
      database: fromDrizzle(db, sql),
      enlistable: (tx) => fromDrizzle(tx, sql),
      begin: (work) => db.transaction(work),
      nest: (tx, work) => tx.transaction(work),
      insert: async (tx, id) => tx.insert(mysqlAccount).values({ id }),
      run: async (tx, text) => tx.execute(sql.raw(text)),
      refused: [
        {
          what: 'a database on one connection',
          make: () => fromDrizzle(drizzleMysql(single), sql),
        },
        { what: 'an object', make: () => fromDrizzle({} as unknown as MysqlTx, sql) },
        { what: 'no sql', make: () => fromDrizzle(db, undefined as unknown as typeof sql) },
      ],
      async close() {
        await single.end();
        await db.$client.end();
      },
    };
  },
};

export const drizzlePostgresLayer: Layer<PostgresTx> = {
  name: 'Drizzle on pg',
  engines: ['PostgreSQL'],
  async open(_engine, url) {
    const db = postgresOn(url);
    const single = new pg.Client(url);
    return {
      database: fromDrizzle(db, sql),
      enlistable: (tx) => fromDrizzle(tx, sql),
      begin: (work) => db.transaction(work),
      nest: (tx, work) => tx.transaction(work),
      insert: async (tx, id) => tx.insert(pgAccount).values({ id }),
      run: async (tx, text) => tx.execute(sql.raw(text)),
      refused: [
        {
          what: 'a database on one connection',
          make: () => fromDrizzle(drizzlePostgres({ client: single }), sql),
        },
      ],
      close: () => db.$client.end(),
    };
  },
};

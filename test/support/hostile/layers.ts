import { fromDrizzle } from '@escrowmq/database/drizzle';
import { fromKnex } from '@escrowmq/database/knex';
import { fromKysely } from '@escrowmq/database/kysely';
import { fromPrisma } from '@escrowmq/database/prisma';
import { fromSequelize } from '@escrowmq/database/sequelize';
import { fromTypeOrm } from '@escrowmq/database/typeorm';
import { PrismaMariaDb } from '@prisma/adapter-mariadb';
import { PrismaPg } from '@prisma/adapter-pg';
import { sql } from 'drizzle-orm';
import { drizzle as drizzleMysql } from 'drizzle-orm/mysql2';
import { drizzle as drizzlePostgres } from 'drizzle-orm/node-postgres';
import knexOf, { type Knex } from 'knex';
import {
  Kysely,
  type Dialect as KyselyDialect,
  type KyselyPlugin,
  type Transaction as KyselyTransaction,
  sql as kyselySql,
  MysqlDialect,
  PostgresDialect,
  SqliteDialect,
} from 'kysely';
import { createPool as createCallbackPool } from 'mysql2';
import { createPool } from 'mysql2/promise';
import pg from 'pg';
import { Sequelize, type Transaction } from 'sequelize';
import { DataSource, DefaultNamingStrategy, type EntityManager } from 'typeorm';
import { openSqlite } from '../producer-layers/better-sqlite3.js';
import type { EngineName } from '../producer-layers/engine.js';
import { openPrisma, type PrismaTx } from '../producer-layers/prisma.js';
import { renamed } from './renaming.js';
import type { HostileLayer } from './suite.js';

const SERVERS: readonly EngineName[] = ['MariaDB', 'PostgreSQL'];
const insertOf = (id: number) => `insert into account (id) values (${id})`;

/** Neither has all the characters that are written. */
const inLatin1 = (engine: EngineName, url: string) =>
  ({ MariaDB: `${url}?charset=latin1`, PostgreSQL: `${url}?client_encoding=LATIN1`, SQLite: url })[
    engine
  ];

const KNEX: Record<EngineName, (url: string) => Knex.Config> = {
  MariaDB: (url) => ({ client: 'mysql2', connection: `${url}&rowsAsArray=true` }),
  PostgreSQL: (url) => ({ client: 'pg', connection: url }),
  SQLite: (url) => ({
    client: 'better-sqlite3',
    connection: { filename: url, options: { safeIntegers: true } } as Knex.Sqlite3ConnectionConfig,
    useNullAsDefault: true,
  }),
};

/** Models instead of rows, and no row that has no model. */
const toModels = (answer: unknown): unknown =>
  Array.isArray(answer) ? answer.slice(1).map(renamed) : renamed(answer);

const knex = (name: string, postProcessResponse: (answer: unknown) => unknown) =>
  ({
    name: `Knex with ${name} in latin1`,
    engines: ['MariaDB', 'PostgreSQL', 'SQLite'],
    async open(engine, url) {
      const made = knexOf({ ...KNEX[engine](inLatin1(engine, url)), postProcessResponse });
      return {
        database: fromKnex(made),
        insert: async (trx, id) => trx('account').insert({ id }),
        close: () => made.destroy(),
      };
    },
  }) satisfies HostileLayer<Knex.Transaction>;

export const hostileKnex = [
  knex('a postProcessResponse that renames', renamed),
  knex('a postProcessResponse that leaves out', toModels),
];

type Tables = Record<'account', { id: number }>;

/** Renames what was read, and lets no more than the first row through. */
const renaming: KyselyPlugin = {
  transformQuery: ({ node }) => node,
  transformResult: async ({ result }) => ({
    ...result,
    rows: result.rows.slice(0, 1).map((row) => renamed(row) as Record<string, unknown>),
  }),
};

const KYSELY: Record<EngineName, (url: string) => KyselyDialect> = {
  MariaDB: (uri) =>
    new MysqlDialect({
      pool: createCallbackPool({ uri, rowsAsArray: true, bigNumberStrings: true }),
    }),
  PostgreSQL: (connectionString) =>
    new PostgresDialect({ pool: new pg.Pool({ connectionString }) }),
  SQLite: (path) => {
    const database = openSqlite(path);
    (database as unknown as { defaultSafeIntegers(): void }).defaultSafeIntegers();
    return new SqliteDialect({ database });
  },
};

export const hostileKysely: HostileLayer<KyselyTransaction<Tables>> = {
  name: 'Kysely with a plugin that renames and leaves out, in latin1',
  engines: ['MariaDB', 'PostgreSQL', 'SQLite'],
  async open(engine, url) {
    const dialect = KYSELY[engine](inLatin1(engine, url));
    const db = new Kysely<Tables>({ dialect, plugins: [renaming] });
    return {
      database: fromKysely(db),
      insert: (trx, id) => kyselySql.raw(insertOf(id)).execute(trx),
      close: () => db.destroy(),
    };
  },
};

const drizzleOn = {
  MariaDB: (uri: string) =>
    drizzleMysql({ client: createPool({ uri, rowsAsArray: true }), casing: 'camelCase' }),
  PostgreSQL: (connectionString: string) =>
    drizzlePostgres({ client: new pg.Pool({ connectionString }), casing: 'camelCase' }),
};

type MysqlDb = ReturnType<typeof drizzleOn.MariaDB>;
type PostgresDb = ReturnType<typeof drizzleOn.PostgreSQL>;

export const hostileDrizzleMysql: HostileLayer<
  Parameters<Parameters<MysqlDb['transaction']>[0]>[0]
> = {
  name: 'Drizzle with casing and rows as arrays, in latin1',
  engines: ['MariaDB'],
  async open(engine, url) {
    const db = drizzleOn.MariaDB(inLatin1(engine, url));
    return {
      database: fromDrizzle(db, sql),
      insert: async (tx, id) => tx.execute(sql.raw(insertOf(id))),
      close: () => db.$client.end(),
    };
  },
};

export const hostileDrizzlePostgres: HostileLayer<
  Parameters<Parameters<PostgresDb['transaction']>[0]>[0]
> = {
  name: 'Drizzle with casing, in latin1',
  engines: ['PostgreSQL'],
  async open(engine, url) {
    const db = drizzleOn.PostgreSQL(inLatin1(engine, url));
    return {
      database: fromDrizzle(db, sql),
      insert: async (tx, id) => tx.execute(sql.raw(insertOf(id))),
      close: () => db.$client.end(),
    };
  },
};

export const hostileSequelize: HostileLayer<Transaction> = {
  name: 'Sequelize whose queries are plain and nested by default, in latin1',
  engines: SERVERS,
  async open(engine, url) {
    const sequelize = new Sequelize(inLatin1(engine, url), {
      logging: false,
      define: { underscored: true },
      quoteIdentifiers: false,
      retry: { max: 3, match: [/./] },
      query: { raw: true, nest: true, plain: true } as object,
      dialectOptions: engine === 'MariaDB' ? { charset: 'latin1', supportBigNumbers: true } : {},
    });
    return {
      database: fromSequelize(sequelize),
      insert: (transaction, id) =>
        sequelize.query(insertOf(id), {
          transaction,
          plain: false,
          nest: false,
          retry: { max: 1 },
        }),
      close: () => sequelize.close(),
    };
  },
};

class Shouting extends DefaultNamingStrategy {
  override tableName(name: string): string {
    return name.toUpperCase();
  }

  override columnName(name: string): string {
    return name.toUpperCase();
  }
}

export const hostileTypeOrm: HostileLayer<EntityManager> = {
  name: 'TypeORM with a naming strategy, in latin1',
  engines: SERVERS,
  async open(engine, url) {
    const namingStrategy = new Shouting();
    const dataSource =
      engine === 'MariaDB'
        ? new DataSource({
            type: 'mariadb',
            url,
            namingStrategy,
            charset: 'latin1',
            supportBigNumbers: true,
            bigNumberStrings: true,
            dateStrings: true,
          })
        : new DataSource({
            type: 'postgres',
            url,
            namingStrategy,
            parseInt8: true,
            extra: { client_encoding: 'LATIN1' },
          });
    await dataSource.initialize();
    return {
      database: fromTypeOrm(dataSource),
      insert: (manager, id) => manager.query(insertOf(id)),
      close: () => dataSource.destroy(),
    };
  },
};

export const hostilePrisma: HostileLayer<PrismaTx> = {
  name: 'Prisma with an extension that renames, in latin1',
  engines: SERVERS,
  async open(engine, url) {
    const there = inLatin1(engine, url);
    const prisma = await openPrisma(
      engine,
      engine === 'MariaDB' ? new PrismaMariaDb(there) : new PrismaPg({ connectionString: there }),
    );
    const extended = prisma.$extends({
      query: {
        $allOperations: async ({ args, query }) => renamed(await query(args)),
      },
    });
    return {
      database: fromPrisma<PrismaTx>(extended),
      insert: (tx, id) => tx.account.create({ data: { id } }),
      close: () => prisma.$disconnect(),
    };
  },
};

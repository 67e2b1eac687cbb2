import { fromKysely } from '@escrowmq/database/kysely';
import {
  CamelCasePlugin,
  type Dialect,
  Kysely,
  MysqlDialect,
  PostgresDialect,
  SqliteDialect,
  sql,
  type Transaction,
} from 'kysely';
import { createPool } from 'mysql2';
import { openSqlite } from './better-sqlite3.js';
import type { EngineName } from './engine.js';
import type { Layer } from './layer.js';
import { pgPool } from './pg-pool.js';

interface Tables {
  account: { id: number; phone: string | null };
}

const DIALECTS: Record<EngineName, (url: string) => Dialect> = {
  MariaDB: (url) => new MysqlDialect({ pool: createPool(url) }),
  PostgreSQL: (url) => new PostgresDialect({ pool: pgPool(url) }),
  SQLite: (url) => new SqliteDialect({ database: openSqlite(url) }),
};

export const kyselyLayer: Layer<Transaction<Tables>> = {
  name: 'Kysely',
  engines: ['MariaDB', 'PostgreSQL', 'SQLite'],
  async open(engine, url) {
    const db = new Kysely<Tables>({
      dialect: DIALECTS[engine](url),
      plugins: [new CamelCasePlugin()],
    });
    return {
      database: fromKysely(db),
      enlistable: (trx) => fromKysely(trx),
      begin: (work) => db.transaction().execute(work),
      insert: (trx, id) => trx.insertInto('account').values({ id, phone: null }).execute(),
      run: (trx, text) => sql.raw(text).execute(trx),
      refused: [
        { what: 'an object', make: () => fromKysely({} as unknown as Kysely<Tables>) },
        { what: 'nothing', make: () => fromKysely(undefined as unknown as Kysely<Tables>) },
      ],
      close: () => db.destroy(),
    };
  },
};

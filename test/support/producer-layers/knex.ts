import { fromKnex } from '@escrowmq/database/knex';
import knexOf, { type Knex } from 'knex';
import type { EngineName } from './engine.js';
import type { Layer } from './layer.js';

const CLIENTS: Record<EngineName, (url: string) => Knex.Config> = {
  MariaDB: (url) => ({ client: 'mysql2', connection: url }),
  PostgreSQL: (url) => ({ client: 'pg', connection: url }),
  SQLite: (url) => ({
    client: 'better-sqlite3',
    connection: { filename: url },
    useNullAsDefault: true,
  }),
};

/** Tests cut connections, and Knex would tell of each. */
const silent = () => undefined;
const SILENT: Knex.Logger = { warn: silent, error: silent, deprecate: silent, debug: silent };

export const knexLayer: Layer<Knex.Transaction> = {
  name: 'Knex',
  engines: ['MariaDB', 'PostgreSQL', 'SQLite'],
  async open(engine, url) {
    const knex = knexOf({ ...CLIENTS[engine](url), log: SILENT });
    return {
      database: fromKnex(knex),
      enlistable: (trx) => fromKnex(trx),
      begin: (work) => knex.transaction(work),
      nest: (trx, work) => trx.transaction(work),
      insert: async (trx, id) => trx('account').insert({ id }),
      run: async (trx, sql) => trx.raw(sql),
      refused: [
        { what: 'a function', make: () => fromKnex((() => undefined) as unknown as Knex) },
        { what: 'nothing', make: () => fromKnex(undefined as unknown as Knex) },
      ],
      close: () => knex.destroy(),
    };
  },
};

import { fromTypeOrm } from '@escrowmq/database/typeorm';
import { DataSource, type EntityManager, EntitySchema } from 'typeorm';
import type { EngineName } from './engine.js';
import type { Layer } from './layer.js';

const Account = new EntitySchema<{ id: number; phone: string | null }>({
  name: 'account',
  columns: {
    id: { type: 'int', primary: true },
    phone: { type: 'varchar', length: 20, nullable: true },
  },
});

const TYPES = { MariaDB: 'mariadb', PostgreSQL: 'postgres', SQLite: 'better-sqlite3' } as const;

function dataSourceOn(engine: EngineName, url: string): DataSource {
  const type = TYPES[engine];
  const entities = [Account];
  return type === 'better-sqlite3'
    ? new DataSource({ type, database: url, entities })
    : new DataSource({ type, url, entities });
}

export const typeOrmLayer: Layer<EntityManager> = {
  name: 'TypeORM',
  engines: ['MariaDB', 'PostgreSQL'],
  async open(engine, url) {
    const dataSource = await dataSourceOn(engine, url).initialize();
    return {
      database: fromTypeOrm(dataSource),
      enlistable: (manager) => fromTypeOrm(manager),
      begin: (work) => dataSource.transaction(work),
      nest: (manager, work) => manager.transaction(work),
      insert: (manager, id) => manager.insert(Account, { id }),
      run: (manager, sql) => manager.query(sql),
      refused: [
        {
          what: 'a manager outside of a transaction',
          make: () => fromTypeOrm(dataSource.manager),
        },
        {
          what: 'a data source on SQLite',
          make: () => fromTypeOrm(dataSourceOn('SQLite', ':memory:')),
        },
        { what: 'an object', make: () => fromTypeOrm({} as unknown as DataSource) },
      ],
      close: () => dataSource.destroy(),
    };
  },
};

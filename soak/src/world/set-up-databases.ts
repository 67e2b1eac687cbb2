import { ensureConsumedTable } from '@escrowmq/consumer';
import { ensureBarrierTable } from '@escrowmq/producer';
import { createPool } from 'mysql2/promise';
import { CONSUMER_TABLES, PRODUCER_TABLES, STORE_TABLES } from '../services/tables.js';
import type { DatabaseServer } from './databases.js';
import { CONSUMER_DATABASE, PRODUCER_DATABASES, STORE_DATABASE } from './names.js';

/* Who has which database, and what is in it before anything runs. */

export interface Databases {
  store: DatabaseServer;
  services: DatabaseServer;
}

/** Empty, with the tables of the services and of the SDKs. */
export async function createDatabases({ store, services }: Databases): Promise<void> {
  await store.create(STORE_DATABASE);
  for (const database of Object.values(PRODUCER_DATABASES)) {
    await services.create(database);
    for (const sql of PRODUCER_TABLES) await inDatabase(services, database, sql);
    await withPool(services.url(services.server.port, database), ensureBarrierTable);
  }
  await services.create(CONSUMER_DATABASE);
  for (const sql of CONSUMER_TABLES) await inDatabase(services, CONSUMER_DATABASE, sql);
  await withPool(services.url(services.server.port, CONSUMER_DATABASE), ensureConsumedTable);
}

/** Once the broker has made its tables: triggers that write down every change of state. */
export async function watchStates({ store }: Databases): Promise<void> {
  for (const sql of STORE_TABLES) await inDatabase(store, STORE_DATABASE, sql);
}

async function inDatabase(target: DatabaseServer, database: string, sql: string): Promise<void> {
  await withPool(target.url(target.server.port, database), async (pool) => {
    await pool.query(sql);
  });
}

async function withPool(
  url: string,
  work: (pool: ReturnType<typeof createPool>) => Promise<void>,
): Promise<void> {
  const pool = createPool({ uri: url, connectionLimit: 1 });
  try {
    await work(pool);
  } finally {
    await pool.end();
  }
}

import { EscrowError } from '@escrowmq/protocol';
import type { Store } from '../domain/ports.js';
import { migrate } from './migrate.js';
import { openMysqlDatabase } from './mysql/database.js';
import { migrations as mysqlMigrations } from './mysql/migrations.js';
import { openSqliteDatabase } from './sqlite/database.js';
import { migrations as sqliteMigrations } from './sqlite/migrations.js';
import { createStore } from './store.js';

/**
 * Opens the store that an URL names, with its schema up to date.
 *
 * @param url `sqlite:<path>` or `mysql://user:password@host:port/database` (MariaDB likewise)
 * @throws INVALID_CONFIGURATION, SCHEMA_TOO_NEW, STORE_UNAVAILABLE
 */
export async function openStore(url: string): Promise<Store> {
  const { database, migrations } = openDatabase(url);
  try {
    await migrate(database, migrations);
  } catch (error) {
    await database.close();
    throw error;
  }
  return createStore(database);
}

function openDatabase(url: string) {
  if (url.startsWith('sqlite:')) {
    const path = url.slice('sqlite:'.length).replace(/^\/\/(?=\/)/, '');
    return { database: openSqliteDatabase(path), migrations: sqliteMigrations };
  }
  if (url.startsWith('mysql:') || url.startsWith('mariadb:')) {
    const mysqlUrl = url.replace(/^mariadb:/, 'mysql:');
    return { database: openMysqlDatabase(mysqlUrl), migrations: mysqlMigrations };
  }
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'ESCROW_STORE must be sqlite:<path> or mysql://user:password@host:port/database',
  );
}

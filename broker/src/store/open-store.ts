import { randomUUID } from 'node:crypto';
import { EscrowError, isEscrowError } from '@escrowmq/protocol';
import type { Store } from '../domain/ports.js';
import { migrate } from './migrate.js';
import { openMysqlDatabase } from './mysql/database.js';
import { migrations as mysqlMigrations } from './mysql/migrations.js';
import { type Database, StoreRefused } from './sql.js';
import { openSqliteDatabase } from './sqlite/database.js';
import { migrations as sqliteMigrations } from './sqlite/migrations.js';
import { createStore } from './store.js';
import { proveWritable } from './writable.js';

/**
 * Opens the store that an URL names, with its schema up to date.
 *
 * @param url `sqlite:<path>` or `mysql://user:password@host:port/database` (MariaDB likewise)
 * @throws INVALID_CONFIGURATION, also where the database refuses this user, SCHEMA_TOO_NEW, and
 * STORE_UNAVAILABLE while it may yet come
 */
export async function openStore(url: string): Promise<Store> {
  const { database, migrations } = openDatabase(url);
  try {
    await migrate(database, migrations);
    const id = await storeId(database);
    await proveRights(database);
    return createStore(database, id);
  } catch (error) {
    await database.close();
    // Waiting changes nothing about a no.
    if (!(error instanceof StoreRefused)) throw error;
    throw new EscrowError('INVALID_CONFIGURATION', error.message, { cause: error });
  }
}

const wrongUrl = () =>
  new EscrowError(
    'INVALID_CONFIGURATION',
    'ESCROW_STORE must be sqlite:<path> or mysql://user:password@host:port/database, with %xx for ' +
      'characters of the password that mean something in an URL',
  );

function openDatabase(url: string) {
  if (url.startsWith('sqlite:')) {
    const path = url.slice('sqlite:'.length).replace(/^\/\/(?=\/)/, '');
    // SQLite would take no path for a database that is gone when it is closed.
    if (path === '') throw wrongUrl();
    return { database: openSqliteDatabase(path), migrations: sqliteMigrations };
  }
  const mysqlUrl = url.replace(/^mariadb:/, 'mysql:');
  if (isMysqlUrl(mysqlUrl)) {
    return { database: openMysqlDatabase(mysqlUrl), migrations: mysqlMigrations };
  }
  throw wrongUrl();
}

/**
 * What the user may not do is told at the start, and not when the first transaction needs it. A store
 * that can not be written now is for readiness to tell: it may be writable again in a minute.
 */
async function proveRights(database: Database): Promise<void> {
  try {
    await proveWritable(database);
    await database.run("delete from escrow_counter where name = ''");
  } catch (error) {
    if (error instanceof StoreRefused) {
      throw new StoreRefused(
        `the user of ESCROW_STORE needs SELECT, INSERT, UPDATE and DELETE on the database: ${error.message}`,
        { cause: error },
      );
    }
    if (!isEscrowError(error)) throw error;
  }
}

/** Made by whichever instance comes first, and the same for all from then on. */
async function storeId(database: Database): Promise<string> {
  const [known] = await database.all<{ id: string }>('select id from escrow_store');
  if (known !== undefined) return known.id;
  await database.insertRows({
    table: 'escrow_store',
    columns: ['singleton', 'id'],
    rows: [[1, randomUUID()]],
    onDuplicate: 'ignore',
  });
  const [row] = await database.all<{ id: string }>('select id from escrow_store');
  if (row === undefined) throw new Error('the store has no id');
  return row.id;
}

/** Checked before the driver sees it, whose errors carry the URL and with it the password. */
function isMysqlUrl(text: string): boolean {
  if (!URL.canParse(text)) return false;
  const { protocol, hostname, pathname, username, password } = new URL(text);
  if (protocol !== 'mysql:' || hostname === '' || pathname.length < 2) return false;
  return isDecodable(`${username}${password}${pathname}`);
}

/** Every % begins an escape, and the bytes are UTF-8. */
function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}

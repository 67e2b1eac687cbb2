import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { VERSION } from '@escrowmq/protocol';
import { afterAll, describe, expect, test } from '@jest/globals';
import { LIVING_MS } from '../../broker/src/domain/instances.js';
import { type Migration, migrate } from '../../broker/src/store/migrate.js';
import { openMysqlDatabase } from '../../broker/src/store/mysql/database.js';
import { migrations as mysqlMigrations } from '../../broker/src/store/mysql/migrations.js';
import type { Database } from '../../broker/src/store/sql.js';
import { openSqliteDatabase } from '../../broker/src/store/sqlite/database.js';
import { migrations as sqliteMigrations } from '../../broker/src/store/sqlite/migrations.js';
import { createStore } from '../../broker/src/store/store.js';
import { freshMysqlDatabase, uniqueName } from '../support/servers.js';

const folder = mkdtempSync(join(tmpdir(), 'escrow-instances-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const OWN = { id: '0198f3c2-7a10-4cc3-98c4-dc0c0c07398f', version: VERSION, host: 'broker-1' };
const OTHER = { id: '0198f3c2-7a10-4cc3-98c4-dc0c0c073990', version: '0.2.0', host: 'broker-2' };

interface Kind {
  name: string;
  url(): Promise<string>;
  open(url: string): Database;
  migrations: readonly Migration[];
}
const kinds: Kind[] = [
  {
    name: 'SQLite',
    url: async () => `sqlite:${join(folder, `${uniqueName('store')}.db`)}`,
    open: (url) => openSqliteDatabase(url.slice('sqlite:'.length)),
    migrations: sqliteMigrations,
  },
  { name: 'MySQL', url: freshMysqlDatabase, open: openMysqlDatabase, migrations: mysqlMigrations },
];

describe.each(kinds)('instances on $name', ({ url: freshUrl, open, migrations }) => {
  /** The store, and the one connection to it that SQLite allows. */
  async function opened() {
    const database = open(await freshUrl());
    await migrate(database, migrations);
    return { database, store: createStore(database, 'store-1') };
  }

  /** As if the instance had last been heard of `ms` ago. */
  const silentFor = (database: Database, id: string, ms: number) =>
    database.run('update escrow_instance set seen_at = seen_at - ? where id = ?', [ms, id]);

  test('each says again and again that it lives, and a stop takes it away', async () => {
    const { store } = await opened();
    await store.heartbeat(OWN);
    await store.heartbeat(OTHER);
    const [first] = await store.livingInstances();
    await store.heartbeat(OWN);
    const living = await store.livingInstances();
    expect(living.map(({ id, version, host }) => ({ id, version, host }))).toEqual(
      expect.arrayContaining([OWN, OTHER]),
    );
    expect(living).toHaveLength(2);
    expect(living.find(({ id }) => id === first?.id)?.startedAt).toBe(first?.startedAt);
    await store.removeInstance(OTHER.id);
    expect(await store.livingInstances()).toMatchObject([OWN]);
    await store.close();
  });

  test('one that has said nothing for a while is dead, and the others remove it', async () => {
    const { database, store } = await opened();
    await store.heartbeat(OTHER);
    await silentFor(database, OTHER.id, LIVING_MS + 1_000);
    expect(await store.livingInstances()).toEqual([]);
    expect(await database.all('select id from escrow_instance')).toHaveLength(1);
    await store.heartbeat(OWN);
    expect(await database.all('select id from escrow_instance')).toEqual([{ id: OWN.id }]);
    // It was only slow: it says so, and counts again.
    await store.heartbeat(OTHER);
    expect(await store.livingInstances()).toHaveLength(2);
    await store.close();
  });

  test('a migration that an older one can not live beside waits until that is gone', async () => {
    const { database, store } = await opened();
    await store.heartbeat(OTHER);
    const next = (migrations.at(-1)?.version ?? 0) + 1;
    const breaking: Migration = {
      version: next,
      name: 'later',
      statements: ['create table escrow_later (id int not null primary key)'],
      needs: '0.3.0',
    };
    const upgrade = () => migrate(database, [...migrations, breaking]);
    await expect(upgrade()).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
      message: expect.stringMatching(
        /^the migration later needs every broker .* 0\.3\.0 or newer, .* 0\.2\.0 on broker-2: stop or upgrade/,
      ),
    });
    // Nothing of it has happened: the older one goes on, and so does what starts beside it.
    await migrate(database, migrations);
    await silentFor(database, OTHER.id, LIVING_MS + 1_000);
    await store.heartbeat({ ...OWN, version: '0.3.0' });
    await upgrade();
    expect(await database.all('select id from escrow_later')).toEqual([]);
    await expect(migrate(database, migrations)).rejects.toMatchObject({ code: 'SCHEMA_TOO_NEW' });
    await store.close();
  });
});

import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { EscrowError } from '@escrowmq/protocol';
import { afterAll, describe, expect, test } from '@jest/globals';
import { createConnection } from 'mysql2/promise';
import { type Migration, migrate } from '../../broker/src/store/migrate.js';
import { openMysqlDatabase } from '../../broker/src/store/mysql/database.js';
import { migrations as mysqlMigrations } from '../../broker/src/store/mysql/migrations.js';
import { openStore } from '../../broker/src/store/open-store.js';
import type { Database } from '../../broker/src/store/sql.js';
import { openSqliteDatabase } from '../../broker/src/store/sqlite/database.js';
import { migrations as sqliteMigrations } from '../../broker/src/store/sqlite/migrations.js';
import { freshMysqlDatabase, uniqueName } from '../support/servers.js';
import { prepare, rowOf } from '../support/store-fixtures.js';
import { startChild } from './children.js';

const folder = mkdtempSync(join(tmpdir(), 'escrow-opening-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const freshSqliteFile = () => join(folder, `${uniqueName('store')}.db`);

async function refusal(opening: Promise<unknown>): Promise<EscrowError> {
  try {
    await opening;
  } catch (error) {
    if (error instanceof EscrowError) return error;
    throw error;
  }
  throw new Error('it opened');
}

interface Kind {
  name: string;
  url(): Promise<string>;
  open(url: string): Database;
  migrations: readonly Migration[];
}

const kinds: Kind[] = [
  {
    name: 'SQLite',
    url: async () => `sqlite:${freshSqliteFile()}`,
    open: (url) => openSqliteDatabase(url.slice('sqlite:'.length)),
    migrations: sqliteMigrations,
  },
  { name: 'MySQL', url: freshMysqlDatabase, open: openMysqlDatabase, migrations: mysqlMigrations },
];

describe.each(kinds)('migrations on $name', ({ url: freshUrl, open, migrations }) => {
  const versions = (database: Database) =>
    database.all<{ version: number }>('select version from escrow_schema order by version');

  test('a second start finds the schema there, and the data', async () => {
    const url = await freshUrl();
    const first = await openStore(url);
    const id = await prepare(first);
    const before = await rowOf(first, id);
    await first.close();
    const second = await openStore(url);
    expect(await rowOf(second, id)).toEqual(before);
    await second.close();
  });

  test('what was cut off in the middle is run again from its beginning (F48)', async () => {
    const url = await freshUrl();
    const database = open(url);
    for (const complete of migrations) {
      const earlier = migrations.filter(({ version }) => version < complete.version);
      await migrate(database, earlier);
      for (let cut = 1; cut <= complete.statements.length; cut++) {
        const statements = [...complete.statements.slice(0, cut), 'this is no SQL'];
        // Not toThrow(): errors of the SQLite driver are of another realm.
        const cutOff = migrate(database, [...earlier, { ...complete, statements }]);
        await expect(cutOff).rejects.toMatchObject({ message: expect.stringMatching(/syntax/) });
        expect(await versions(database)).toEqual(earlier.map(({ version }) => ({ version })));
      }
    }
    await migrate(database, migrations);
    expect(await versions(database)).toEqual(migrations.map(({ version }) => ({ version })));
    await database.close();
    const store = await openStore(url);
    expect((await store.counts()).byState.prepared).toBe(0);
    await store.close();
  });

  test('producer groups that were there before versions have version 0 (F48)', async () => {
    const url = await freshUrl();
    const database = open(url);
    await migrate(
      database,
      migrations.filter(({ version }) => version < 2),
    );
    await database.insertRows({
      table: 'escrow_producer_group',
      columns: ['name', 'check_urls', 'check_policy', 'signing_secret', 'updated_at'],
      rows: [['accounts', '[]', '{}', 'whsec_1', 1]],
      onDuplicate: 'fail',
    });
    await database.close();
    const store = await openStore(url);
    expect(await store.findGroup('accounts')).toMatchObject({ name: 'accounts', version: 0 });
    await store.close();
  });

  test('a schema of a newer broker is refused with what to do, and left alone (F48)', async () => {
    const url = await freshUrl();
    await (await openStore(url)).close();
    const newer = (migrations.at(-1)?.version ?? 0) + 1;
    const database = open(url);
    await migrate(database, [...migrations, { version: newer, name: 'later', statements: [] }]);
    await database.close();
    const error = await refusal(openStore(url));
    expect(error.code).toBe('SCHEMA_TOO_NEW');
    expect(error.message).toContain(`schema version ${newer}`);
    expect(error.message).toContain('start the newer broker');
  });
});

test('two processes that start on one MySQL database at once both open it', async () => {
  const url = await freshMysqlDatabase();
  const children = [startChild('open', url), startChild('open', url), startChild('open', url)];
  const said = await Promise.all(children.map((child) => child.nextLine()));
  await Promise.all(children.map((child) => child.end()));
  expect(said).toEqual(['opened', 'opened', 'opened']);
});

describe('a SQLite file', () => {
  test('serves one process; a second is refused and told what to use instead', async () => {
    const url = `sqlite:${freshSqliteFile()}`;
    const store = await openStore(url);
    const child = startChild('open', url);
    const said = await child.nextLine();
    await child.end();
    expect(said).toMatch(/^INVALID_CONFIGURATION: .*another process has it open.*mysql:/);

    const id = await prepare(store);
    expect((await rowOf(store, id)).state.state).toBe('prepared');
    await store.close();
    const next = startChild('open', url);
    expect(await next.nextLine()).toBe('opened');
    await next.end();
  });

  test('is synced at every commit, on the second opening as on the first', async () => {
    const file = freshSqliteFile();
    for (let opening = 0; opening < 2; opening++) {
      const database = openSqliteDatabase(file);
      await migrate(database, sqliteMigrations);
      // 2 is FULL.
      expect(await database.all('pragma synchronous')).toEqual([{ synchronous: 2 }]);
      expect(await database.all('pragma journal_mode')).toEqual([{ journal_mode: 'wal' }]);
      await database.close();
    }
  });

  test('that can not be opened is refused with the reason', async () => {
    const missing = await refusal(openStore(`sqlite:${join(folder, 'no', 'such', 'folder.db')}`));
    expect(missing.code).toBe('INVALID_CONFIGURATION');
    expect(missing.message).toContain('the folder must exist and be writable');

    mkdirSync(join(folder, 'a-folder'));
    const isFolder = await refusal(openStore(`sqlite:${join(folder, 'a-folder')}`));
    expect(isFolder.code).toBe('INVALID_CONFIGURATION');

    const file = freshSqliteFile();
    writeFileSync(file, 'This is a letter to my mother and not a database at all. '.repeat(100));
    const letter = await refusal(openStore(`sqlite:${file}`));
    expect(letter.code).toBe('INVALID_CONFIGURATION');
    expect(letter.message).toContain('is not a SQLite database');
  });
});

describe('U09: a user of the store without the rights of an owner', () => {
  const RIGHTS = 'select, insert, update, delete';

  /** A database, and its URL as a user that has these rights there and none else. */
  async function asUser(
    rights: string,
  ): Promise<{ owner: string; user: string; drop(): Promise<void> }> {
    const owner = await freshMysqlDatabase();
    const name = `u${randomBytes(6).toString('hex')}`;
    const database = new URL(owner).pathname.slice(1);
    const admin = await createConnection(owner);
    await admin.query(`create user '${name}'@'%' identified by 'sesame'`);
    await admin.query(`grant ${rights} on \`${database}\`.* to '${name}'@'%'`);
    const user = new URL(owner);
    user.username = name;
    user.password = 'sesame';
    const drop = async () => {
      await admin.query(`drop user '${name}'@'%'`);
      await admin.end();
    };
    return { owner, user: user.href, drop };
  }

  test('starts on a schema that is up to date, and works', async () => {
    const { owner, user, drop } = await asUser(RIGHTS);
    await (await openStore(owner)).close();
    const store = await openStore(user);
    const id = await prepare(store);
    expect((await rowOf(store, id)).state.state).toBe('prepared');
    await store.close();
    await drop();
  });

  test.each([
    ['none yet', 0],
    ['one pending', -1],
  ])('is told which migrations are missing, and what they need: %s', async (_what, end) => {
    const { owner, user, drop } = await asUser(RIGHTS);
    const there = mysqlMigrations.slice(0, end);
    if (there.length > 0) {
      const database = openMysqlDatabase(owner);
      await migrate(database, there);
      await database.close();
    }
    const startedAt = performance.now();
    const { code, message } = await refusal(openStore(user));
    expect(performance.now() - startedAt).toBeLessThan(5_000);
    expect(code).toBe('INVALID_CONFIGURATION');
    for (const { version, name } of mysqlMigrations.slice(there.length)) {
      expect(message).toContain(`${version} (${name})`);
    }
    expect(message).toContain('grant it CREATE, ALTER and INDEX');
    await drop();
  });

  test.each(['insert', 'update', 'delete'])('without %s is told so at its start', async (right) => {
    const rights = RIGHTS.split(', ').filter((each) => each !== right);
    const { owner, user, drop } = await asUser(rights.join(', '));
    // Its first proof inserts a row, the later ones change it.
    if (right === 'update') await (await openStore(owner)).close();
    await (await openStore(owner)).close();
    if (right === 'insert') await withoutProof(owner);
    const { code, message } = await refusal(openStore(user));
    expect(code).toBe('INVALID_CONFIGURATION');
    expect(message).toContain('needs SELECT, INSERT, UPDATE and DELETE');
    expect(message.toLowerCase()).toContain(`${right} command denied`);
    await drop();
  });

  async function withoutProof(url: string): Promise<void> {
    const connection = await createConnection(url);
    await connection.query('delete from escrow_counter');
    await connection.end();
  }
});

describe('a store URL', () => {
  const SECRET = 'sesame-4711';

  /** No part of an error may tell the password: neither its text nor what a log prints of it. */
  function expectSecretKept(error: EscrowError): void {
    expect(inspect(error, { depth: 10, showHidden: true })).not.toContain(SECRET);
  }

  async function mysqlUrl(change: (url: URL) => void): Promise<string> {
    const url = new URL(await freshMysqlDatabase());
    change(url);
    return url.href;
  }

  test('with a wrong password is refused, without telling it', async () => {
    const url = await mysqlUrl((each) => {
      each.password = SECRET;
    });
    const error = await refusal(openStore(url));
    expect(error.code).toBe('INVALID_CONFIGURATION');
    expect(error.message).toMatch(/Access denied for user.*ESCROW_STORE/);
    expectSecretKept(error);
  });

  test('of a database that does not exist is refused by its name', async () => {
    const url = await mysqlUrl((each) => {
      each.pathname = '/no_such_database';
    });
    const error = await refusal(openStore(url));
    expect(error.code).toBe('INVALID_CONFIGURATION');
    expect(error.message).toMatch(/no_such_database.*ESCROW_STORE/);
  });

  test('of a server that does not answer is refused with the reason', async () => {
    const error = await refusal(openStore(`mysql://root:${SECRET}@127.0.0.1:1/escrow`));
    expect(error.code).toBe('STORE_UNAVAILABLE');
    expect(error.message).toContain('ECONNREFUSED');
    expectSecretKept(error);
  });

  test.each([
    ['without a database', `mysql://root:${SECRET}@127.0.0.1:1`],
    ['without a name for its database', `mysql://root:${SECRET}@127.0.0.1:1/`],
    ['with a port that is no number', `mysql://root:${SECRET}@127.0.0.1:port/escrow`],
    ['with a password that is not encoded', `mysql://root:${SECRET}/%@127.0.0.1/escrow`],
    ['with a broken escape in its password', `mysql://root:${SECRET}%zz@127.0.0.1:1/escrow`],
    ['of another kind', `postgres://root:${SECRET}@127.0.0.1/escrow`],
    ['without a file', 'sqlite:'],
  ])('%s is refused with the form it must have', async (_what, url) => {
    const error = await refusal(openStore(url));
    expect(error.code).toBe('INVALID_CONFIGURATION');
    expect(error.message).toContain('mysql://user:password@host:port/database');
    expectSecretKept(error);
  });
});

import { mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { SqliteConnection } from '../../database/src/adapters/sqlite-connection.js';
import type { Meaning } from '../../database/src/meaning.js';
import { meaningOf } from '../../database/src/server-errors.js';

const require = createRequire(import.meta.url);

/** Each only where it loads: the one is compiled for one version of Node, the other comes with 22. */
const DRIVERS: [string, (path: string, options?: { readOnly: boolean }) => SqliteConnection][] = [
  [
    'better-sqlite3',
    (path, { readOnly } = { readOnly: false }) => {
      const Database = require('better-sqlite3');
      return new Database(path, { timeout: 0, readonly: readOnly });
    },
  ],
  [
    'node:sqlite',
    (path, { readOnly } = { readOnly: false }) => {
      const { DatabaseSync } = require('node:sqlite');
      return new DatabaseSync(path, { readOnly });
    },
  ],
];

function loads(open: (path: string) => SqliteConnection): boolean {
  try {
    open(':memory:').close();
    return true;
  } catch {
    return false;
  }
}

const loadable = DRIVERS.filter(([, open]) => loads(open));

test('a driver for SQLite loads', () => {
  expect(loadable).not.toEqual([]);
});

describe.each(loadable)('with %s', (_, open) => {
  let folder: string;
  let path: string;
  let connection: SqliteConnection;
  let other: SqliteConnection;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'escrowmq-sqlite-errors-'));
    path = join(folder, 'app.db');
    connection = open(path);
    connection.exec('pragma journal_mode = WAL');
    connection.exec('create table item (id integer primary key, name text unique)');
    connection.exec('create table pair (one text, other text, primary key (one, other))');
    connection.exec("insert into item values (1, 'one')");
    connection.exec("insert into pair values ('a', 'b')");
    connection.close();
  });
  afterAll(() => rmSync(folder, { recursive: true }));
  beforeEach(() => {
    connection = open(path);
    other = open(path);
  });
  afterEach(() => {
    connection.close();
    other.close();
  });

  const cases: [string, Meaning | undefined, (on: SqliteConnection) => unknown][] = [
    ['a duplicate row id', 'duplicate key', (on) => on.exec("insert into item values (1, 'two')")],
    [
      'a duplicate in a unique column',
      'duplicate key',
      (on) => on.exec("insert into item values (2, 'one')"),
    ],
    [
      'a duplicate primary key',
      'duplicate key',
      (on) => on.exec("insert into pair values ('a', 'b')"),
    ],
    ['a missing table', 'no such table', (on) => on.exec('insert into nowhere values (1)')],
    [
      'a write while another connection has written',
      'locked',
      (on) => {
        other.exec('begin immediate');
        on.exec("insert into item values (3, 'three')");
      },
    ],
    [
      'a write after a read of what another connection has changed since',
      'locked',
      (on) => {
        on.exec('begin');
        on.prepare('select * from item').all();
        other.exec("update item set name = 'one' where id = 1");
        on.exec("insert into item values (3, 'three')");
      },
    ],
    [
      'a savepoint that is not there',
      'no open transaction',
      (on) => on.exec('release savepoint gone'),
    ],
    ['a COMMIT outside of a transaction', 'no open transaction', (on) => on.exec('commit')],
    ['a ROLLBACK outside of a transaction', 'no open transaction', (on) => on.exec('rollback')],
    [
      'a BEGIN inside of a transaction',
      'other',
      (on) => {
        on.exec('begin');
        on.exec('begin');
      },
    ],
    ['a statement that is no SQL', 'other', (on) => on.exec('not sql')],
    [
      'a connection that may only read',
      'read-only',
      () => {
        const reading = open(path, { readOnly: true });
        try {
          reading.exec("insert into item values (3, 'three')");
        } finally {
          reading.close();
        }
      },
    ],
    [
      'a connection that is closed',
      undefined,
      () => {
        const closed = open(path);
        closed.close();
        closed.exec('select 1');
      },
    ],
  ];

  test.each(cases)('%s means %s', (_name, meaning, work) => {
    let error: unknown;
    try {
      work(connection);
    } catch (thrown) {
      error = thrown;
    }
    expect(error).toHaveProperty('message');
    expect({ meaning: meaningOf(error), error }).toEqual({ meaning, error });
  });
});

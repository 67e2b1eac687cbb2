import { afterAll, beforeAll, expect, test } from '@jest/globals';
import pg from 'pg';
import type { Meaning } from '../../database/src/meaning.js';
import { isAnswered, meaningOf } from '../../database/src/server-errors.js';
import { freshPostgresDatabase } from '../support/servers.js';
import { until } from '../support/until.js';

let pool: pg.Pool;

beforeAll(async () => {
  pool = new pg.Pool({ connectionString: await freshPostgresDatabase(), max: 4 });
  // One test ends a connection that lies idle in it.
  pool.on('error', () => {});
  await pool.query('create table item (id int primary key)');
  await pool.query('insert into item values (1), (2)');
});
afterAll(() => pool.end());

type Work = (client: pg.PoolClient, other: pg.PoolClient) => Promise<unknown>;

/** The error of a statement, on one of two connections that nobody uses afterwards. */
async function errorOf(work: Work): Promise<unknown> {
  const [client, other] = [await pool.connect(), await pool.connect()];
  for (const each of [client, other]) each.on('error', () => {});
  try {
    return await work(client, other).then(
      () => {
        throw new Error('it succeeded');
      },
      (error: unknown) => error,
    );
  } finally {
    client.release(true);
    other.release(true);
  }
}

async function inOrder(client: pg.PoolClient, ...statements: string[]): Promise<void> {
  for (const sql of statements) await client.query(sql);
}

const cases: [string, Meaning | undefined, Work][] = [
  ['a duplicate key', 'duplicate key', (client) => client.query('insert into item values (1)')],
  ['a missing table', 'no such table', (client) => client.query('insert into nowhere values (1)')],
  [
    'a lock that was waited for in vain',
    'locked',
    async (client, other) => {
      await inOrder(other, 'begin', 'insert into item values (3)');
      await inOrder(client, 'begin', "set local lock_timeout = '50ms'");
      await client.query('insert into item values (3)');
    },
  ],
  [
    'a lock that is not waited for',
    'locked',
    async (client, other) => {
      await inOrder(other, 'begin', 'select * from item where id = 1 for update');
      await client.query('select * from item where id = 1 for update nowait');
    },
  ],
  [
    'a deadlock',
    'deadlock',
    async (client, other) => {
      // The other one never looks for it, so the victim is ours.
      await inOrder(other, "set deadlock_timeout = '1min'", 'begin');
      await inOrder(client, "set deadlock_timeout = '50ms'", 'begin');
      await other.query('update item set id = id where id = 2');
      await client.query('update item set id = id where id = 1');
      const waiting = other.query('update item set id = id where id = 1');
      // PostgreSQL looks for a deadlock once in a wait: the victim must come last.
      await until('the other one waits', async () => {
        const { rows } = await pool.query('select 1 from pg_locks where not granted');
        return rows.length > 0;
      });
      await Promise.all([waiting, client.query('update item set id = id where id = 2')]);
    },
  ],
  [
    'a savepoint that is not there',
    'no open transaction',
    (client) => inOrder(client, 'begin', 'release savepoint gone'),
  ],
  [
    'a savepoint outside of a transaction',
    'no open transaction',
    (client) => client.query('savepoint lonely'),
  ],
  [
    'a statement after an error that was swallowed',
    'no open transaction',
    async (client) => {
      await client.query('begin');
      await client.query('not sql').catch(() => undefined);
      await client.query('select 1');
    },
  ],
  [
    'a transaction that may not write',
    'read-only',
    (client) => inOrder(client, 'begin read only', 'insert into item values (4)'),
  ],
  [
    'a statement that took too long',
    'interrupted',
    (client) => inOrder(client, "set statement_timeout = '20ms'", 'select pg_sleep(5)'),
  ],
  ['a statement that is no SQL', 'other', (client) => client.query('not sql')],
  [
    'a connection that an administrator ends',
    undefined,
    (client) => client.query('select pg_terminate_backend(pg_backend_pid())'),
  ],
  [
    'a transaction that was idle for too long',
    undefined,
    async (client) => {
      const ended = new Promise((_, reject) => client.once('error', reject));
      await inOrder(client, "set idle_in_transaction_session_timeout = '20ms'", 'begin');
      await ended;
    },
  ],
  [
    'a statement on a connection that is gone',
    undefined,
    async (client) => {
      await client.query('select pg_terminate_backend(pg_backend_pid())').catch(() => undefined);
      await client.query('select 1');
    },
  ],
  [
    'a server that nobody runs',
    undefined,
    () => new pg.Client({ host: '127.0.0.1', port: 1 }).connect(),
  ],
  [
    'a database that is not there',
    undefined,
    () => {
      const url = new URL(String(pool.options.connectionString));
      url.pathname = '/nowhere';
      return new pg.Client({ connectionString: url.href }).connect();
    },
  ],
];

test.each(cases)('%s means %s', async (_, meaning, work) => {
  const error = await errorOf(work);
  expect(error).toHaveProperty('message');
  expect({ meaning: meaningOf(error), error }).toEqual({ meaning, error });
  expect(isAnswered(error)).toBe(meaning !== undefined);
});

test('an error that another one wraps means the same', async () => {
  const cause = await errorOf((client) => client.query('insert into item values (1)'));
  expect(meaningOf(new Error('could not save', { cause }))).toBe('duplicate key');
});

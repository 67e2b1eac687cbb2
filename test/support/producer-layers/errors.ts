import type { Executor } from '@escrowmq/producer';
import { expect, test } from '@jest/globals';
import type { Meaning } from '../../../database/src/meaning.js';
import { isAnswered, meaningOf } from '../../../database/src/server-errors.js';
import { type Bench, cutConnection, deadlock, failure } from './bench.js';
import type { EngineName } from './engine.js';

/** Long enough for a deadlock on PostgreSQL, which is looked for after a second. */
const LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };

interface Case<Tx> {
  meaning: Meaning | undefined;
  of: string;
  /** Rejects with the error. */
  provoke(bench: Bench<Tx>, executor: Executor, tx: Tx): Promise<unknown>;
  engines?: readonly EngineName[];
}

const insert = 'insert into account (id) values (1)';

/** Waits for a lock no longer than a second; SQLite, as the layer opened it, five. */
const SHORT_LOCK_WAIT: Record<EngineName, string> = {
  MariaDB: 'set session innodb_lock_wait_timeout = 1',
  PostgreSQL: "set local lock_timeout = '200ms'",
  SQLite: 'select 1',
};

const SERVERS: readonly EngineName[] = ['MariaDB', 'PostgreSQL'];

function cases<Tx>(): Case<Tx>[] {
  return [
    {
      meaning: 'duplicate key',
      of: 'a second row with a primary key',
      async provoke(_bench, { execute }) {
        await execute(insert);
        await execute(insert);
      },
    },
    {
      meaning: 'no such table',
      of: 'a select from a table that is missing',
      provoke: (_bench, { execute }) => execute('select decision from nowhere'),
    },
    {
      meaning: 'no such table',
      of: 'an insert into a table that is missing',
      provoke: (_bench, { execute }) => execute('insert into nowhere (id) values (1)'),
    },
    {
      meaning: 'no open transaction',
      of: 'a savepoint that is missing',
      provoke: (_bench, { execute }) => execute('release savepoint missing'),
    },
    {
      meaning: 'no open transaction',
      of: 'a rollback to a savepoint that is missing',
      provoke: (_bench, { execute }) => execute('rollback to savepoint missing'),
    },
    {
      meaning: 'no open transaction',
      of: 'a transaction that an error has spoilt',
      engines: ['PostgreSQL'],
      async provoke(_bench, { execute }) {
        await execute('select * from nowhere').catch(() => undefined);
        await execute('select 1');
      },
    },
    {
      meaning: 'locked',
      of: 'a row that somebody else holds',
      engines: SERVERS,
      async provoke(bench, { execute }) {
        await bench.engine.query(insert);
        const other = await bench.engine.connect();
        await other.query('begin');
        await other.query("update account set phone = 'x' where id = 1");
        try {
          await execute(SHORT_LOCK_WAIT[bench.engine.name]);
          await execute("update account set phone = 'y' where id = 1");
        } finally {
          await other.query('rollback');
          other.release();
        }
      },
    },
    {
      meaning: 'deadlock',
      of: 'two transactions that want the same rows in opposite orders',
      engines: SERVERS,
      provoke: (bench, _execute, tx) => deadlock(bench, tx),
    },
    {
      meaning: 'read-only',
      of: 'a write in a transaction that may only read',
      engines: ['PostgreSQL'],
      async provoke(_bench, { execute }) {
        await execute('set transaction read only');
        await execute(insert);
      },
    },
    {
      meaning: 'other',
      of: 'a statement that is no SQL',
      provoke: (_bench, { execute }) => execute('nonsense'),
    },
    {
      meaning: undefined,
      of: 'a connection that was cut',
      engines: SERVERS,
      async provoke({ engine }, executor) {
        await executor.execute(insert);
        await cutConnection(engine, executor);
        await executor.execute('insert into account (id) values (2)');
      },
    },
  ];
}

/** What the SDK reads from the errors of a layer, on the engine itself. */
export function describeErrors<Tx>(bench: Bench<Tx>, name: EngineName): void {
  const here = cases<Tx>().filter(({ engines }) => engines === undefined || engines.includes(name));
  test.each(here)('$of means: $meaning', async ({ meaning, provoke }) => {
    const thrown = await failure(
      bench.layer.database.transaction(({ executor, tx }) => provoke(bench, executor, tx), LIMITS),
    );
    expect({ meaning: meaningOf(thrown), thrown }).toMatchObject({ meaning });
    expect(isAnswered(thrown)).toBe(meaning !== undefined);
  });

  test('a statement after the end of its transaction is refused, and not by a lost connection', async () => {
    let execute: (sql: string) => Promise<unknown> = async () => undefined;
    await bench.layer.database.session(async (executor) => {
      execute = (sql) => executor.execute(sql);
      await execute(insert);
    }, LIMITS);
    const thrown = await failure(execute('release savepoint escrow_barrier'));
    expect({ said: meaningOf(thrown) ?? thrown.message }).toEqual({
      said: expect.stringMatching(/^no open transaction$|ended|released/),
    });
  });
}

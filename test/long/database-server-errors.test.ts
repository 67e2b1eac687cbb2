import {
  ensureConsumedTable,
  ensureLatestTable,
  latest,
  once,
  purgeConsumed,
} from '@escrowmq/consumer';
import {
  createCheckHandler,
  createProducer,
  ensureBarrierTable,
  type Producer,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { createPool, type Pool } from 'mysql2/promise';
import type { Meaning, Said } from '../../database/src/meaning.js';
import { MYSQL_ERRORS } from '../../database/src/mysql-errors.js';
import { newMessage } from '../support/consumer-layers/bench.js';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { type MysqlErrorProxy, startMysqlErrorProxy } from '../support/mysql-error-proxy.js';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';
import { until } from '../support/until.js';

/*
 * X2: each error of the SDKs' table, in the place of a real server's answer, at each place that
 * handles errors. A claim of a rollback is only ever made where it is certain.
 */

const AWAY: readonly Said[] = ['unavailable', 'read-only', 'interrupted', 'connection lost'];
const numbersOf = (...said: readonly Said[]) =>
  [...MYSQL_ERRORS].filter(([, each]) => said.includes(each)).map(([number]) => number);
const ANSWERED: readonly Meaning[] = ['locked', 'refused', 'no open transaction'];

let database: ProducerDatabase;
let proxy: MysqlErrorProxy;
let pool: Pool;
let broker: FakeBroker;
let producer: Producer;
const { logger } = recordingLogger();

beforeAll(async () => {
  database = await startProducerDatabase();
  await ensureConsumedTable(database.observer);
  await ensureLatestTable(database.observer);
  proxy = await startMysqlErrorProxy(database.url);
  pool = createPool({ uri: proxy.url, connectionLimit: 2 });
});
beforeEach(async () => {
  broker = await startFakeBroker();
  producer = createProducer({ brokers: [broker.address], producerGroup: 'accounts', logger });
  await database.observer.query('delete from account');
});
afterEach(async () => {
  proxy.heal();
  await producer.close();
  await broker.close();
});
afterAll(async () => {
  await pool.end();
  await proxy.close();
  await database.close();
});

const failureOf = (work: Promise<unknown>): Promise<unknown> =>
  work.then(
    (result) => ({ succeeded: result }),
    (error: unknown) => error,
  );

const hasSucceeded = (result: unknown) =>
  typeof result === 'object' && result !== null && 'succeeded' in result;

describe('X2: an error in answer to the claim of a message', () => {
  const CLAIM = /^insert into escrow_latest/;
  const call = (work: () => Promise<unknown> = async () => undefined) =>
    latest(pool, newMessage(), { key: `order:${Math.random()}`, at: 1 }, work);

  test('is a conflict: the whole is run again, the work once (1020 like 1213)', async () => {
    expect(numbersOf('deadlock')).toEqual(expect.arrayContaining([1020, 1213]));
    for (const number of numbersOf('deadlock')) {
      let works = 0;
      proxy.fail(CLAIM, number, { times: 2 });
      const result = await call(async () => {
        works += 1;
      });
      expect({ number, result, works }).toEqual({ number, result: 'applied', works: 1 });
    }
  });

  test('says that the database is away: DATABASE_UNAVAILABLE, and the connection does not go back', async () => {
    for (const number of numbersOf(...AWAY)) {
      const before = proxy.ended();
      proxy.fail(CLAIM, number, { times: 1 });
      const error = await failureOf(call());
      expect(error).toMatchObject({ code: 'DATABASE_UNAVAILABLE', cause: { errno: number } });
      const said = MYSQL_ERRORS.get(number);
      if (said === 'interrupted' || said === 'connection lost') continue;
      await until(`${number} closes it`, () => proxy.ended() === before + 1);
    }
  });

  test('says something else: it is passed on as it is', async () => {
    for (const number of numbersOf(...ANSWERED)) {
      proxy.fail(CLAIM, number, { times: 1 });
      expect(await failureOf(call())).toMatchObject({ errno: number });
    }
  });
});

test('X2: a 1020 of MariaDB itself has rolled back, and what a work that swallows it sends next does not stand alone', async () => {
  const own = createPool({ uri: database.url, connectionLimit: 2 });
  own.on('connection', (connection) => {
    // The default from MariaDB 11.6 on; a server without the setting has no such error.
    const raw = connection as unknown as { query(sql: string, done: () => void): void };
    raw.query('set session innodb_snapshot_isolation = on', () => undefined);
    connection.query('set session transaction isolation level repeatable read');
  });
  const message = newMessage();
  await database.observer.query('insert into account (id) values (1)');
  let swallowed: unknown;
  try {
    const applying = once(own, message, async (tx) => {
      await tx.query('select * from account');
      await database.observer.query("update account set phone = 'theirs' where id = 1");
      swallowed = await failureOf(tx.query("update account set phone = 'mine' where id = 1"));
      await tx.query('insert into account (id) values (2)');
    });
    const error = await failureOf(applying);
    if (!hasSucceeded(swallowed)) {
      expect(swallowed).toMatchObject({ errno: 1020 });
      expect(error).toMatchObject({ code: 'TRANSACTION_MISUSED' });
      expect(await database.accounts()).toEqual([1]);
    }
    // Without such a work it is applied.
    const repeated = await once(own, message, async () => undefined);
    expect(repeated).toBe(hasSucceeded(swallowed) ? 'duplicate' : 'applied');
  } finally {
    await own.end();
  }
});

describe('X2: an error in answer to COMMIT', () => {
  test('of once proves a rollback or leaves it open, and the repeat applies the message', async () => {
    for (const number of MYSQL_ERRORS.keys()) {
      const message = newMessage();
      proxy.fail(/^commit/, number, { times: 1 });
      const error = await failureOf(once(pool, message, async () => undefined));
      const isCertain = [1213, 1614, 3101].includes(number);
      expect({ number, error }).toMatchObject(
        isCertain
          ? { number, error: { errno: number } }
          : { number, error: { code: 'OUTCOME_UNKNOWN', cause: { errno: number } } },
      );
      expect(await once(pool, message, async () => undefined)).toBe('applied');
    }
  });

  test.each([1020, 1047, 1105, 1180, 1213, 1290, 1317, 3100, 3101, 3024])(
    '%i to a producer: the database is asked what became of it, and both sides agree',
    async (number) => {
      proxy.fail(/^commit/, number, { times: 1 });
      const error = await failureOf(
        producer.transaction(pool, { topic: 'user', data: 1 }, (tx) =>
          tx.execute('insert into account (id) values (1)'),
        ),
      );
      expect(error).toMatchObject({ errno: number });
      const [{ id, state }] = [...broker.transactions.values()] as [{ id: string; state: string }];
      expect(state).toBe('rolledBack');
      expect(await database.accounts()).toEqual([]);
      // Decided by the barrier row, and not believed.
      expect(await database.barrier(id)).toBe('rollback');
    },
  );
});

describe('X2: an error in answer to a check', () => {
  test('decides nothing: the answer is unknown, and the next check decides', async () => {
    const handler = createCheckHandler({ signingSecret: SIGNING_SECRET, database: pool, logger });
    // Asked for once, at the first check.
    await ask(handler, '0198f3c2-0000-7000-8000-ffffffffffff');
    let count = 0;
    for (const number of MYSQL_ERRORS.keys()) {
      count += 1;
      const id = `0198f3c2-0000-7000-8000-${String(count).padStart(12, '0')}`;
      // Somebody else was first is no answer until it is one four times.
      const times = numbersOf('deadlock', 'not serializable').includes(number) ? 4 : 1;
      proxy.fail(/^insert into escrow_barrier/, number, { times });
      expect({ number, decision: await ask(handler, id) }).toEqual({ number, decision: 'unknown' });
      expect(await database.barrier(id)).toBeUndefined();
    }
    expect(await ask(handler, '0198f3c2-0000-7000-8000-000000000001')).toBe('rollback');
  });

  test.each(numbersOf('deadlock', 'not serializable'))(
    '%i is asked again, and decided',
    async (number) => {
      const handler = createCheckHandler({ signingSecret: SIGNING_SECRET, database: pool, logger });
      const id = `0198f3c2-0000-7000-8000-${String(number).padStart(12, '0')}`;
      proxy.fail(/^insert into escrow_barrier/, number, { times: 3 });
      expect(await ask(handler, id)).toBe('rollback');
      expect(await database.barrier(id)).toBe('rollback');
    },
  );
});

describe('X2, N13: an error before the callback of a transaction runs', () => {
  test.each([
    ['BEGIN', /^start transaction/, 1040],
    ['BEGIN', /^start transaction/, 1047],
    ['the barrier row', /^insert into escrow_barrier/, 1047],
    ['the barrier row', /^insert into escrow_barrier/, 3100],
    ['the barrier row', /^insert into escrow_barrier/, 1290],
    ['the barrier row', /^insert into escrow_barrier/, 4031],
  ])(
    'in answer to %s (%s, %i) is DATABASE_UNAVAILABLE, and rolled back',
    async (_what, statement, number) => {
      proxy.fail(statement, number, { times: 1 });
      const error = await failureOf(
        producer.transaction(pool, { topic: 'user', data: 1 }, async () => {
          throw new Error('it must not be called');
        }),
      );
      expect(error).toMatchObject({ code: 'DATABASE_UNAVAILABLE', cause: { errno: number } });
      expect([...broker.transactions.values()]).toMatchObject([{ state: 'rolledBack' }]);
    },
  );

  test('a callback that swallows a 1020 sends nothing after it', async () => {
    const error = await failureOf(
      producer.transaction(pool, { topic: 'user', data: 1 }, async (tx) => {
        await tx.execute('insert into account (id) values (1)');
        proxy.fail(/^update account/, 1020, { times: 1 });
        await tx.query("update account set phone = 'a' where id = 1").catch(() => undefined);
        await tx.query('insert into account (id) values (2)');
      }),
    );
    expect(error).toMatchObject({ code: 'TRANSACTION_MISUSED' });
    expect(await database.accounts()).toEqual([]);
  });

  test('tables and purges say the same', async () => {
    proxy.fail(/^create table/, 1047, { times: 1 });
    expect(await failureOf(ensureBarrierTable(pool))).toMatchObject({
      code: 'DATABASE_UNAVAILABLE',
    });
    proxy.fail(/^select min/, 1927, { times: 1 });
    expect(await failureOf(purgeConsumed(pool))).toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
  });
});

import { fromMysql2 } from '@escrowmq/database/mysql2';
import {
  createCheckHandler,
  createProducer,
  type Producer,
  type ProducerOptions,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Pool, PoolConnection } from 'mysql2/promise';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';
import { deferred } from '../support/ready.js';
import { until } from '../support/until.js';

/* What a service does wrong with mysql2, seen before money moves. */

const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };
const { logger, records } = recordingLogger();
let database: ProducerDatabase;
let broker: FakeBroker;
let pool: Pool;
let producer: Producer;
let open: Producer[];

beforeAll(async () => {
  database = await startProducerDatabase();
});
afterAll(() => database.close());

beforeEach(async () => {
  open = [];
  records.length = 0;
  await database.observer.query('delete from account');
  broker = await startFakeBroker();
  pool = database.pool({ connectionLimit: 2 });
  producer = producerOf();
});
afterEach(async () => {
  for (const each of open) await each.close();
  await broker.close();
});

function producerOf(options: Partial<ProducerOptions> = {}): Producer {
  const made = createProducer({
    brokers: [broker.address],
    producerGroup: 'accounts',
    logger,
    ...options,
  });
  open.push(made);
  return made;
}

type Tx = Pick<PoolConnection, 'execute' | 'query'>;
const insert = (tx: Tx, id: number) => tx.execute('insert into account (id) values (?)', [id]);
const states = () => [...broker.transactions.values()].map(({ state }) => state);

describe('transaction', () => {
  test('a statement that the callback did not await is an error, and nothing is committed', async () => {
    const failed = producer.transaction(pool, message, async (tx) => {
      await insert(tx, 1);
      void tx.query('select sleep(0.2)').catch(() => undefined);
    });
    await expect(failed).rejects.toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('await every statement'),
    });
    expect(await database.accounts()).toEqual([]);
    expect(states()).toEqual(['rolledBack']);
  });

  test('a callback that works on another connection is told so (F20)', async () => {
    const failed = producer.transaction(pool, message, async () => {
      await pool.query('insert into account (id) values (1)');
    });
    await expect(failed).rejects.toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('another connection'),
    });
    expect(states()).toEqual(['rolledBack']);
  });

  test('a transaction that begins after its start deadline is refused before its callback (F13)', async () => {
    // The first transaction must keep it, on a busy machine as well.
    const startDeadlineMs = 1_000;
    const hasty = producerOf({ startDeadlineMs });
    await hasty.transaction(pool, message, (tx) => insert(tx, 1));
    const held = [await pool.getConnection(), await pool.getConnection()];
    let isCalled = false;
    const late = hasty.transaction(pool, message, async () => {
      isCalled = true;
    });
    late.catch(() => undefined);
    await until('it is prepared', () => broker.transactions.size === 2);
    const preparedAt = Date.now();
    await until('the deadline has passed', () => Date.now() - preparedAt > startDeadlineMs);
    for (const connection of held) connection.release();
    await expect(late).rejects.toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('startDeadlineMs'),
    });
    expect(isCalled).toBe(false);
    expect(states()).toEqual(['committed', 'rolledBack']);
  });

  test('a pool without autocommit changes nothing: a swallowed deadlock is still seen', async () => {
    const single = database.pool({ connectionLimit: 1 });
    await single.query('set session autocommit = 0');
    await producer.transaction(single, message, (tx) => insert(tx, 1));
    const failed = producer.transaction(single, message, async (tx) => {
      await insert(tx, 2);
      await tx.query("signal sqlstate '40001' set mysql_errno = 1213").catch(() => undefined);
      await tx.query('rollback');
      await insert(tx, 3);
    });
    await expect(failed).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
    expect(await database.accounts()).toEqual([1]);
  });

  test.each([
    ['the callback API of mysql2', () => pool.pool, 'mysql2/promise'],
    ['a transaction', () => fromMysql2({} as PoolConnection), 'producer.enlist'],
    ['something else', () => ({}), 'fromPg(pool)'],
    ['nothing', () => undefined, 'fromPg(pool)'],
  ])('%s in the place of a database is refused with what to pass', async (_, given, cure) => {
    const failed = producer.transaction(given() as Pool, message, (tx) => insert(tx, 1));
    await expect(failed).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining(cure),
    });
    expect(broker.transactions.size).toBe(0);
  });

  test('a check that reaches another database answers unknown and writes nothing there', async () => {
    const other = await startProducerDatabase();
    let id = '';
    await producer.transaction(pool, message, async (tx, info) => {
      id = info.id;
      await insert(tx, 1);
    });
    const { checkContext } = JSON.parse(broker.requests[0]!.body).operations[0];
    const handler = (from: Pool) =>
      createCheckHandler({ signingSecret: SIGNING_SECRET, database: from, logger });
    expect(await ask(handler(other.observer), id, { check: { checkContext } })).toBe('unknown');
    expect(records.at(-1)?.fields.reason).toMatch(/not the database/);
    expect(await other.barrier(id)).toBeUndefined();
    expect(await ask(handler(database.observer), id, { check: { checkContext } })).toBe('commit');
    await other.close();
  });
});

describe('the caller need not wait for the broker', () => {
  test('with commitInBackground the call ends with the local COMMIT, and close waits', async () => {
    const gate = deferred();
    let id = '';
    const result = await producer.transaction(
      pool,
      message,
      async (tx, info) => {
        id = info.id;
        await insert(tx, 1);
        await until('it is prepared', () => broker.transactions.size === 1);
        broker.script.push({ after: gate.promise });
      },
      { commitInBackground: true },
    );
    expect(result).toMatchObject({ outcome: 'committed', acknowledged: false });
    expect(states()).toEqual(['prepared']);
    gate.resolve();
    await producer.close();
    expect(broker.transactions.get(id)?.state).toBe('committed');
  });
});

describe('data supplied at commit', () => {
  const openMessage = { topic: 'user', dataAtCommit: true } as const;
  const commitOf = (id: string) =>
    broker.operations().find((operation) => operation.id === id && operation.op === 'commit');

  test('go with the commit, and with the answer of a check', async () => {
    let id = '';
    await producer.transaction(pool, [message, openMessage], async (tx, info) => {
      id = info.id;
      await insert(tx, 1);
      info.supplyData({ name: "O'Neill \\ 名" }, 1);
    });
    const messageData = [{ number: 1, data: { name: "O'Neill \\ 名" } }];
    expect(commitOf(id)).toEqual({ op: 'commit', id, messageData });
    const handler = createCheckHandler({
      signingSecret: SIGNING_SECRET,
      database: database.observer,
      logger,
    });
    const { askWith } = await import('../support/producer-database.js');
    const answer = await askWith(handler, id);
    expect(JSON.parse(answer.body)).toEqual({ id, decision: 'commit', messageData });
  });

  test.each([
    ['none', () => undefined, 'message 0'],
    ['twice', (supply: (data: unknown) => void) => [supply(1), supply(2)], 'already'],
    ['for another message', (supply: (d: unknown, n: number) => void) => supply(1, 5), 'message 5'],
    ['undefined', (supply: (data: unknown) => void) => supply(undefined), 'undefined'],
  ])('supplied wrongly (%s) roll back with a sentence', async (_, work, words) => {
    const failed = producer.transaction(pool, openMessage, async (tx, { supplyData }) => {
      await insert(tx, 1);
      (work as (supply: typeof supplyData) => void)(supplyData);
    });
    await expect(failed).rejects.toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining(words),
    });
    expect(await database.accounts()).toEqual([]);
    expect(states()).toEqual(['rolledBack']);
  });

  const cycle: Record<string, unknown> = {};
  cycle.self = cycle;
  test.each<[string, unknown, string, string]>([
    ['__proto__', JSON.parse('{"a":{"__proto__":1}}'), 'INVALID_REQUEST', 'data.a.__proto__'],
    ['what holds itself', cycle, 'INVALID_REQUEST', 'data.self'],
    ['a function', { run: () => 1 }, 'INVALID_REQUEST', 'data.run'],
    ['a Map', [new Map()], 'INVALID_REQUEST', 'data.0'],
    ['half of a surrogate pair', '\ud800', 'INVALID_REQUEST', 'data'],
    ['a text of 1 MiB', 'x'.repeat(1024 * 1024), 'BODY_TOO_LARGE', 'transactionBytesMax'],
  ])('U02: that can not travel (%s) roll back before COMMIT', async (_, data, code, says) => {
    const failed = producer.transaction(pool, openMessage, async (tx, { supplyData }) => {
      await insert(tx, 1);
      supplyData(data);
    });
    const refused = await failed.catch((error: unknown) => error);
    expect(refused).toMatchObject({ code });
    expect(JSON.stringify(refused) + String(refused)).toContain(says);
    expect(await database.accounts()).toEqual([]);
    expect(states()).toEqual(['rolledBack']);
  });

  test('U02: travel as they were when they were supplied', async () => {
    let id = '';
    await producer.transaction(pool, openMessage, async (tx, info) => {
      id = info.id;
      await insert(tx, 1);
      const data: { userId: number; run?: () => void } = { userId: 1 };
      info.supplyData(data);
      data.run = () => {};
    });
    expect(commitOf(id)).toMatchObject({ messageData: [{ number: 0, data: { userId: 1 } }] });
  });
});

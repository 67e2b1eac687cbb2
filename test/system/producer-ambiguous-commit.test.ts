import { mysqlStatement, startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import { createCheckHandler, createProducer, type Producer } from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { Pool } from 'mysql2/promise';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';

const COMMIT = mysqlStatement('commit');
const TRIALS = 20;

const message = { topic: 'user', data: { userId: 7 } };
const { logger } = recordingLogger();
let database: ProducerDatabase;
let broker: FakeBroker;
let proxy: TcpProxy;
let pool: Pool;
let producer: Producer;

beforeAll(async () => {
  database = await startProducerDatabase();
});
afterAll(() => database.close());

beforeEach(async () => {
  await database.observer.query('delete from account');
  proxy = await startTcpProxy(database.url);
  pool = database.pool({ uri: proxy.url, connectionLimit: 2 });
  broker = await startFakeBroker();
  producer = createProducer({
    brokers: [broker.address],
    producerGroup: 'accounts',
    logger,
    settleTimeoutMs: 3_000,
  });
});
afterEach(async () => {
  await producer.close();
  await broker.close();
  await proxy.close();
});

async function attempt(
  id: number,
  from = pool,
): Promise<{ transactionId: string; outcome: unknown }> {
  let transactionId = '';
  const outcome = await producer
    .transaction(from, message, async (tx, info) => {
      transactionId = info.id;
      await tx.execute('insert into account (id) values (?)', [id]);
      return 'registered';
    })
    .catch((error: unknown) => error);
  return { transactionId, outcome };
}

const verdictsOf = (transactionId: string) =>
  broker
    .operations()
    .filter(({ id, op }) => id === transactionId && op !== 'prepare')
    .map(({ op }) => op);

test('a COMMIT that never reached the database is decided as a rollback, every time (F16)', async () => {
  for (let trial = 1; trial <= TRIALS; trial += 1) {
    const cut = proxy.cutNext(COMMIT, 'before');
    const { transactionId, outcome } = await attempt(trial);
    await cut;
    expect(outcome).toBeInstanceOf(Error);
    expect(verdictsOf(transactionId)).toEqual(['rollback']);
    expect(await database.barrier(transactionId)).toBe('rollback');
  }
  expect(await database.accounts()).toEqual([]);
});

test('a COMMIT whose answer was lost is decided as a commit, every time (F15)', async () => {
  for (let trial = 1; trial <= TRIALS; trial += 1) {
    const cut = proxy.cutNext(COMMIT, 'after');
    const { transactionId, outcome } = await attempt(trial);
    await cut;
    expect(outcome).toMatchObject({ outcome: 'committed', value: 'registered' });
    expect(verdictsOf(transactionId)).toEqual(['commit']);
    expect(await database.barrier(transactionId)).toBe('commit');
  }
  expect(await database.accounts()).toHaveLength(TRIALS);
});

test('a database that refuses the first question after a failed COMMIT is asked again', async () => {
  let connections = 0;
  let refuseAt = Number.POSITIVE_INFINITY;
  const getConnection = async () => {
    connections += 1;
    if (connections === refuseAt) throw new Error('too many connections');
    return pool.getConnection();
  };
  const flaky: Pool = Object.assign(Object.create(pool), { getConnection });
  await attempt(0, flaky);
  // The local transaction takes the next one, the question after its COMMIT the one after that.
  refuseAt = connections + 2;
  const cut = proxy.cutNext(COMMIT, 'after');
  const { transactionId, outcome } = await attempt(1, flaky);
  await cut;
  expect(outcome).toMatchObject({ outcome: 'committed', value: 'registered' });
  expect(connections).toBeGreaterThan(refuseAt);
  expect(verdictsOf(transactionId)).toEqual(['commit']);
});

test.each(['before', 'after'] as const)(
  'with the database gone %s COMMIT nothing is sent, the caller learns so, and a check decides',
  async (when) => {
    const cut = proxy.cutNext(COMMIT, when).then(() => proxy.close());
    const { transactionId, outcome } = await attempt(1);
    await cut;
    expect(outcome).toMatchObject({ outcome: 'unknown', id: transactionId });
    expect(outcome).toHaveProperty('cause', expect.any(Error));
    expect(verdictsOf(transactionId)).toEqual([]);
    const check = createCheckHandler({
      signingSecret: SIGNING_SECRET,
      database: database.observer,
      logger,
    });
    const decision = when === 'before' ? 'rollback' : 'commit';
    expect(await ask(check, transactionId)).toBe(decision);
    expect(await database.accounts()).toEqual(when === 'before' ? [] : [1]);
  },
);

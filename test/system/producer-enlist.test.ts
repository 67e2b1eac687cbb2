import { fromMysql2 } from '@escrowmq/database/mysql2';
import { createProducer, type Producer } from '@escrowmq/producer';
import { EscrowError } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { PoolConnection } from 'mysql2/promise';
import { type FakeBroker, problemAnswer, startFakeBroker } from '../support/fake-broker.js';
import {
  type ProducerDatabase,
  recordingLogger,
  startProducerDatabase,
} from '../support/producer-database.js';

/* Messages added to a transaction that the caller opens and ends himself. */

const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };
const { logger } = recordingLogger();
let database: ProducerDatabase;
let broker: FakeBroker;
let producer: Producer;
let connection: PoolConnection;

beforeAll(async () => {
  database = await startProducerDatabase();
});
afterAll(() => database.close());

beforeEach(async () => {
  await database.observer.query('delete from account');
  broker = await startFakeBroker();
  producer = createProducer({
    brokers: [broker.address],
    producerGroup: 'accounts',
    logger,
    settleTimeoutMs: 1_500,
  });
  connection = await database.pool({ connectionLimit: 1 }).getConnection();
});
afterEach(async () => {
  connection.destroy();
  await producer.close();
  await broker.close();
});

const own = () => fromMysql2(database.observer);
const insert = (id: number) => connection.query('insert into account (id) values (?)', [id]);
const stateOf = (id: string) => broker.transactions.get(id)?.state;

test('a commit of the caller is found out and told to the broker, as often as it is asked', async () => {
  await connection.beginTransaction();
  const escrow = await producer.enlist(fromMysql2(connection), message);
  expect(stateOf(escrow.id)).toBe('prepared');
  await insert(1);
  await escrow.verify();
  await connection.commit();
  const committed = { outcome: 'committed', id: escrow.id };
  expect(await escrow.settle(own())).toEqual(committed);
  expect(await escrow.settle(own())).toEqual(committed);
  expect(stateOf(escrow.id)).toBe('committed');
});

test('a rollback of the caller is found out, and final', async () => {
  await connection.beginTransaction();
  const escrow = await producer.enlist(fromMysql2(connection), message);
  await insert(1);
  await connection.rollback();
  expect(await escrow.settle(own())).toEqual({ outcome: 'rolledBack', id: escrow.id });
  expect(stateOf(escrow.id)).toBe('rolledBack');
});

test('settled while the transaction is open, the outcome is unknown and nothing is told', async () => {
  await connection.beginTransaction();
  const escrow = await producer.enlist(fromMysql2(connection), message);
  expect(await escrow.settle(own())).toMatchObject({
    outcome: 'unknown',
    reason: expect.stringContaining('still open'),
  });
  expect(stateOf(escrow.id)).toBe('prepared');
  await connection.commit();
  expect(await escrow.settle(own())).toMatchObject({ outcome: 'committed' });
});

test('two may be enlisted in one transaction, with savepoints of the caller around', async () => {
  await connection.beginTransaction();
  const first = await producer.enlist(fromMysql2(connection), message);
  await connection.query('savepoint mine');
  const second = await producer.enlist(fromMysql2(connection), message);
  await connection.query('release savepoint mine');
  await first.verify();
  await expect(second.verify()).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
  await connection.rollback();
});

test.each(['in autocommit', 'after its COMMIT'])(
  'a connection %s is refused, and nothing is prepared',
  async (when) => {
    if (when === 'after its COMMIT') {
      await connection.beginTransaction();
      await connection.commit();
    }
    await expect(producer.enlist(fromMysql2(connection), message)).rejects.toMatchObject({
      code: 'TRANSACTION_MISUSED',
      message: expect.stringContaining('autocommit'),
    });
    expect(broker.requests).toEqual([]);
  },
);

test('a pool in the place of a transaction is refused', async () => {
  const pool = fromMysql2(database.pool()) as never;
  await expect(producer.enlist(pool, message)).rejects.toMatchObject({
    code: 'TRANSACTION_MISUSED',
    message: expect.stringContaining('fromKnex(trx)'),
  });
});

test('an enlist that was not awaited stands in the transaction all the same', async () => {
  await connection.beginTransaction();
  const enlisted = producer.enlist(fromMysql2(connection), message).catch((error) => error);
  await connection.rollback();
  const escrow = await enlisted;
  if (escrow instanceof Error) {
    expect(escrow).toMatchObject({ code: 'TRANSACTION_MISUSED' });
    expect(broker.requests).toEqual([]);
  } else {
    expect(await escrow.settle(own())).toMatchObject({ outcome: 'rolledBack' });
  }
});

test('DDL, a swallowed deadlock or an own COMMIT between is seen before the COMMIT', async () => {
  for (const sql of ['create table if not exists extra (id int)', 'commit', 'rollback']) {
    await connection.beginTransaction();
    const escrow = await producer.enlist(fromMysql2(connection), message);
    await connection.query(sql);
    await expect(escrow.verify()).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
    await connection.rollback();
    const outcome = sql === 'rollback' ? 'rolledBack' : 'committed';
    expect(await escrow.settle(own())).toMatchObject({ outcome });
  }
});

test('a refusal of the broker is thrown, and the caller rolls back', async () => {
  broker.script.push(problemAnswer(new EscrowError('UNKNOWN_PRODUCER_GROUP', 'no such group')));
  await connection.beginTransaction();
  await expect(producer.enlist(fromMysql2(connection), message)).rejects.toMatchObject({
    code: 'UNKNOWN_PRODUCER_GROUP',
  });
  await connection.rollback();
  expect(await database.accounts()).toEqual([]);
});

test('data supplied before verify go with the commit', async () => {
  await connection.beginTransaction();
  const escrow = await producer.enlist(fromMysql2(connection), { topic: 'a', dataAtCommit: true });
  await insert(1);
  escrow.supplyData({ id: 1 });
  await escrow.verify();
  await connection.commit();
  await escrow.settle(own());
  expect(broker.operations().at(-1)).toEqual({
    op: 'commit',
    id: escrow.id,
    messageData: [{ number: 0, data: { id: 1 } }],
  });
});

test('U02: data that can not travel are refused in an enlisted transaction that is still open', async () => {
  await connection.beginTransaction();
  const escrow = await producer.enlist(fromMysql2(connection), { topic: 'a', dataAtCommit: true });
  expect(() => escrow.supplyData({ a: new Set() })).toThrow(
    /data supplied for message 0.*a is a Set/,
  );
  await expect(escrow.verify()).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
  await connection.rollback();
});

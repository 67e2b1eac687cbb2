import { createProducer, type Producer } from '@escrowmq/producer';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { MARIADB, type SuiteConnections } from '../support/producer-databases.js';
import { startOutboxDatabase } from '../support/producer-outbox.js';
import { until } from '../support/until.js';

const message = { topic: 'user', data: { userId: 7 } };

describe('what a service does wrong with mysql2', () => {
  let suite: Awaited<ReturnType<typeof startOutboxDatabase>>;
  let connections: SuiteConnections;
  let broker: FakeBroker;
  let producer: Producer;
  let id: string;

  beforeEach(async () => {
    suite = await startOutboxDatabase(MARIADB);
    connections = suite.connect({ connections: 2 });
    broker = await startFakeBroker();
    const { logger } = recordingLogger();
    const brokers = [broker.address];
    producer = createProducer({ brokers, producerGroup: 'accounts', outbox: true, logger });
  });
  afterEach(async () => {
    await producer.close();
    await broker.close();
    await suite.close();
  });

  const failure = (work: (tx: unknown) => Promise<unknown>) =>
    producer
      .transaction(connections.database, message, (tx, info) => {
        id = info.id;
        return work(tx);
      })
      .then(
        () => undefined,
        (error: unknown) => error,
      );
  const insert = (tx: unknown, account: number) =>
    suite.send(tx, `insert into account (id) values (${account})`);

  test('a swallowed deadlock ends the transaction, and nothing is sent', async () => {
    await suite.observe('insert into account (id) values (1), (2)');
    const rival = suite.connect({ connections: 1 }).database;
    const limits = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };
    const lock = (tx: unknown, account: number) =>
      suite.send(tx, `select id from account where id = ${account} for update`);
    const thrown = await failure(async (tx) => {
      await lock(tx, 1);
      await rival.transaction(async (open) => {
        // The server gives up who has written less: not this one.
        await suite.send(open.tx, 'insert into account (id) values (7), (8), (9), (10), (11)');
        await lock(open.tx, 2);
        const mine = lock(tx, 2).catch(() => undefined);
        await lock(open.tx, 1);
        await mine;
      }, limits);
      await insert(tx, 3);
    });
    expect(thrown).toMatchObject({
      code: 'TRANSACTION_MISUSED',
      details: { outcome: 'rollback' },
    });
    expect(await suite.outbox(id)).toBeUndefined();
    expect(broker.requests).toEqual([]);
  });

  test('DDL commits the row with what was written before it, and its messages go', async () => {
    const thrown = await failure(async (tx) => {
      await insert(tx, 1);
      await suite.send(tx, 'create table extra (id int)');
      await insert(tx, 2);
    });
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'commit' } });
    await until('it is sent', async () => (await suite.outbox(id)) === 'sent');
    expect(broker.operations()).toMatchObject([{ op: 'send', id }]);
  });

  test.each([
    ['a statement that was not awaited', (tx: unknown) => insert(tx, 1).then(() => waitLong(tx))],
    ['a callback that sent nothing through its tx', async () => undefined],
  ])('%s is an error, and nothing is left in the outbox', async (_, work) => {
    expect(await failure(work)).toMatchObject({
      code: 'TRANSACTION_MISUSED',
      details: { outcome: 'rollback' },
    });
    expect(await suite.outbox(id)).toBeUndefined();
    expect(await suite.accounts()).toEqual([]);
    expect(broker.requests).toEqual([]);
  });

  function waitLong(tx: unknown): void {
    void suite.send(tx, 'select sleep(0.2)').catch(() => undefined);
  }
});

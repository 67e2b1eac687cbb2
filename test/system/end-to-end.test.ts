import http from 'node:http';
import {
  type ConsumerEvent,
  createConsumer,
  ensureConsumedTable,
  once,
  PermanentError,
} from '@escrowmq/consumer';
import {
  createCheckHandler,
  createProducer,
  ensureBarrierTable,
  nodeCheckListener,
  type Producer,
} from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** Producer SDK, broker and consumer SDK, as a user puts them together. */
describe.each(['sqlite', 'mysql'] as const)('with the broker on %s', (kind) => {
  const topic = uniqueName('user');
  const group = uniqueName('accounts');
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  /** Somebody else's, on the same RabbitMQ: it must not take our receipts. */
  let neighbour: BrokerProcess;
  let neighbourStore: Awaited<ReturnType<typeof freshStore>>;
  let pool: Pool;
  let server: http.Server;
  let producer: Producer;

  beforeAll(async () => {
    store = await freshStore(kind);
    broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    neighbourStore = await freshStore('sqlite');
    neighbour = await startBrokerProcess({ store: neighbourStore.url, rabbitmq: rabbitmqUrl() });
    pool = createPool(await freshMysqlDatabase());
    await pool.query('create table user (id int primary key, phone varchar(20) not null)');
    await pool.query('create table phone_index (phone varchar(20) primary key, user_id int)');
    await ensureBarrierTable(pool);
    await ensureConsumedTable(pool);
    producer = createProducer({ brokers: [broker.url], producerGroup: group });
    server = http.createServer().listen(0, '127.0.0.1');
    await new Promise((listening) => server.once('listening', listening));
    const { port } = server.address() as { port: number };
    const { signingSecret } = await producer.registerGroup({
      checkUrls: [`http://127.0.0.1:${port}/check`],
      checkPolicy: { firstDelayMs: 0, delayMsMax: 200 },
    });
    const check = createCheckHandler({
      signingSecret: String(signingSecret),
      databases: { 'shard-3': pool },
      // One test asks for a database that is not there.
      logger: { warn: () => undefined, error: () => undefined },
    });
    server.on('request', nodeCheckListener(check));
  });
  afterAll(async () => {
    server.closeAllConnections();
    server.close();
    await producer.close();
    await broker.stop();
    await neighbour.stop();
    await neighbourStore.remove();
    await pool.end();
    await store.remove();
  });

  const rows = async (sql: string, values: unknown[]) =>
    (await pool.query<RowDataPacket[]>(sql, values))[0];
  const register = (id: number, phone: string, work?: () => Promise<void>) =>
    producer.transaction(
      pool,
      { topic, routingKey: 'registered', data: { id, phone } },
      async (tx) => {
        await tx.execute('insert into user values (?, ?)', [id, phone]);
        await work?.();
      },
      {
        database: 'shard-3',
        businessKeys: [`phone:${phone}`],
        expects: ['phone-index'],
        checkAfterMs: 60_000,
      },
    );

  test('a committed transaction is applied once and its business key settles', async () => {
    const events: ConsumerEvent[] = [];
    const consumer = createConsumer({
      rabbitmq: rabbitmqUrl(),
      logger: (event) => events.push(event),
    });
    await consumer.subscribe<{ id: number; phone: string }>(
      { topic, group: 'phone-index', routingKeys: ['registered'], retryDelaysMs: [50] },
      async (message) => {
        await once(pool, message, async (tx) => {
          if (message.data.phone === 'refused') throw new PermanentError('no such phone');
          await tx.execute('insert into phone_index values (?, ?)', [
            message.data.phone,
            message.data.id,
          ]);
        });
      },
    );
    const { id } = await register(1, '100');
    expect(await producer.waitForBusinessKey('phone:100')).toMatchObject({ settled: true });
    expect(await rows('select user_id from phone_index where phone = ?', ['100'])).toEqual([
      { user_id: 1 },
    ]);
    expect(await producer.query(id)).toMatchObject({
      state: 'forwarded',
      settled: true,
      receipts: [{ consumerGroup: 'phone-index', kind: 'consumed' }],
    });

    await expect(
      register(2, '200', async () => {
        throw new Error('the account is full');
      }),
    ).rejects.toThrow('the account is full');
    expect(await producer.waitForBusinessKey('phone:200')).toMatchObject({ settled: true });
    expect(await rows('select id from user where id = ?', [2])).toEqual([]);

    // A group that gave up ends the wait at once, long before its limit.
    await register(3, 'refused');
    expect(await producer.waitForBusinessKey('phone:refused', { waitMs: 30_000 })).toMatchObject({
      settled: false,
      transactions: [{ failed: ['phone-index'], waitingFor: [] }],
    });
    await consumer.close();
    expect(events.filter(({ event }) => event === 'deadLettered')).toMatchObject([
      { group: 'phone-index', cause: expect.stringContaining('no such phone') },
    ]);
  });

  test('a prepare that nobody committed is decided by the barrier of its database (F09)', async () => {
    const { id } = await producer.prepare({
      messages: [{ topic, routingKey: 'registered', data: 1 }],
      checkContext: 'shard-3',
    });
    await until('the check has rolled it back', async () => {
      const { state } = await producer.query(id);
      return state === 'rolledBack';
    });
    const late = producer.commit(id);
    await expect(late).rejects.toMatchObject({
      code: 'STATE_CONFLICT',
      details: { decision: { decision: 'rollback', by: expect.stringMatching(/^check http/) } },
    });
  });

  test('a check for a database that the producer does not know is never a rollback (F38)', async () => {
    const { id } = await producer.prepare({
      messages: [{ topic, routingKey: 'registered', data: 1 }],
      checkContext: 'shard-9',
    });
    await until('it has been asked twice', async () => {
      const { checks } = await producer.query(id);
      return checks.unknown + checks.unanswered >= 2;
    });
    expect((await producer.query(id)).state).toBe('prepared');
    await producer.rollback(id);
  });
});

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { type Consumer, createConsumer, PermanentError } from '@escrowmq/consumer';
import {
  createCompensationHandler,
  createProducer,
  ensureBarrierTable,
  ensureCompensationTable,
  ensureOutboxTable,
  nodeCompensationListener,
  type Producer,
} from '@escrowmq/producer';
import { deadLetterQueueName } from '@escrowmq/protocol';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { onChannel } from '../support/rabbit.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** An order that the stock refuses is cancelled: producer, broker and consumer as a user has them. */
describe.each(['sqlite', 'mysql'] as const)('with the broker on %s', (kind) => {
  const topic = uniqueName('orders');
  const outboxTopic = uniqueName('orders-outbox');
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let pool: Pool;
  let server: http.Server;
  let producer: Producer;
  let consumer: Consumer;
  /** Articles that are there after all. */
  const restocked = new Set<string>();
  let calls = 0;

  beforeAll(async () => {
    store = await freshStore(kind);
    broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    pool = createPool(await freshMysqlDatabase());
    await pool.query('create table orders (id int primary key, state varchar(20) not null)');
    await pool.query('create table refund (order_id int not null)');
    await ensureBarrierTable(pool);
    await ensureOutboxTable(pool);
    await ensureCompensationTable(pool);
    producer = createProducer({
      brokers: [broker.url],
      producerGroup: uniqueName('shop'),
      outbox: { topics: [outboxTopic] },
    });
    server = http.createServer().listen(0, '127.0.0.1');
    await new Promise((listening) => server.once('listening', listening));
    const { port } = server.address() as AddressInfo;
    const { signingSecret } = await producer.registerGroup({
      checkUrls: [],
      compensationUrls: [`http://127.0.0.1:${port}/`],
      checkPolicy: { firstDelayMs: 0, delayMsMax: 100 },
    });
    const compensation = createCompensationHandler({
      signingSecret: String(signingSecret),
      database: pool,
      compensate: async (tx, { businessKeys: [key = ''] }) => {
        const order = Number(key.replace('order:', ''));
        await tx.execute('update orders set state = ? where id = ?', ['cancelled', order]);
        await tx.execute('insert into refund values (?)', [order]);
      },
    });
    const listener = nodeCompensationListener(compensation);
    server.on('request', (request, response) => {
      calls += 1;
      // The first answer is lost, and the call comes again.
      if (calls === 1) {
        response.writeHead = () => response;
        response.end = () => {
          response.destroy();
          return response;
        };
      }
      listener(request, response);
    });
    consumer = createConsumer({ rabbitmq: rabbitmqUrl(), logger: () => undefined });
    for (const name of [topic, outboxTopic]) {
      await consumer.subscribe<{ article: string }>(
        { topic: name, group: 'stock', retryDelaysMs: [20] },
        async ({ data: { article } }) => {
          if (article === 'none' && !restocked.has(article)) throw new PermanentError('sold out');
          if (article === 'flaky') throw new Error('the stock is locked');
        },
      );
    }
  });
  afterAll(async () => {
    await consumer.close();
    server.closeAllConnections();
    server.close();
    await producer.close();
    await broker.stop();
    await pool.end();
    await store.remove();
  });

  const rows = async (sql: string, values: unknown[]) =>
    (await pool.query<RowDataPacket[]>(sql, values))[0];
  const stateOf = async (order: number) =>
    (await rows('select state from orders where id = ?', [order]))[0]?.state;
  const refunds = async (order: number) =>
    (await rows('select * from refund where order_id = ?', [order])).length;

  async function place(order: number, article: string, to = topic): Promise<string> {
    const { id } = await producer.transaction(
      pool,
      { topic: to, routingKey: 'placed', data: { article }, compensate: true },
      (tx) => tx.execute('insert into orders values (?, ?)', [order, 'placed']),
      { businessKeys: [`order:${order}`], expects: ['stock'] },
    );
    return id;
  }
  const compensated = (id: string) =>
    until('it is compensated', async () => {
      const { compensations } = await producer.query(id);
      return compensations[0]?.state === 'done';
    });

  test('an order that the stock refuses is cancelled once, though the first answer is lost', async () => {
    const id = await place(1, 'none');
    const view = await producer.query(id, { waitMs: 30_000 });
    expect(view).toMatchObject({
      settled: false,
      groups: [{ consumerGroup: 'stock', state: 'failed', attempts: 1, cause: /sold out/ }].map(
        ({ cause, ...group }) => ({ ...group, cause: expect.stringMatching(cause) }),
      ),
    });
    await compensated(id);
    expect(calls).toBe(2);
    expect(await stateOf(1)).toBe('cancelled');
    expect(await refunds(1)).toBe(1);
  });

  test('attempts that are spent are given up for good as well, and success is left alone', async () => {
    const [spent, fine] = [await place(2, 'flaky'), await place(3, 'there')];
    await compensated(spent);
    expect(await producer.query(spent)).toMatchObject({
      groups: [{ state: 'failed', attempts: 2 }],
    });
    expect(await producer.query(fine, { waitMs: 30_000 })).toMatchObject({
      settled: true,
      groups: [{ consumerGroup: 'stock', state: 'consumed', attempts: 0 }],
      compensations: [],
    });
    expect([await stateOf(2), await stateOf(3)]).toEqual(['cancelled', 'placed']);
  });

  test('in outbox mode there is no barrier to ask, and the order is cancelled all the same', async () => {
    await place(4, 'none', outboxTopic);
    await until('it is cancelled', async () => (await stateOf(4)) === 'cancelled');
    expect(await refunds(4)).toBe(1);
  });

  test('a dead letter that is consumed after all is told of', async () => {
    const id = await place(5, 'none');
    await compensated(id);
    restocked.add('none');
    // As an operator does who has mended what was wrong.
    await onChannel(rabbitmqUrl(), async (channel) => {
      let moved = 0;
      for (;;) {
        const dead = await channel.get(deadLetterQueueName(topic, 'stock'), { noAck: true });
        if (dead === false) break;
        channel.publish(topic, 'placed', dead.content, dead.properties);
        moved += 1;
      }
      expect(moved).toBeGreaterThan(0);
      await channel.waitForConfirms();
    });
    await until('somebody is told', () =>
      broker.log.some(
        (entry) => entry.kind === 'consumedAfterCompensation' && entry.transactionId === id,
      ),
    );
    expect(await producer.query(id, { waitMs: 30_000 })).toMatchObject({
      settled: true,
      groups: [{ state: 'consumed' }],
      compensations: [{ state: 'done' }],
    });
    expect(await refunds(5)).toBe(1);
  });
});

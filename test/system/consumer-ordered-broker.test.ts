import { setTimeout as pause } from 'node:timers/promises';
import { createConsumer } from '@escrowmq/consumer';
import { createProducer } from '@escrowmq/producer';
import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { deleteOrdered, KeyWatch, keysNamed, numbersTo } from '../support/ordered-bench.js';
import { onChannel } from '../support/rabbit.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const topic = uniqueName('user');
const group = 'phone-index';
const partitions = 3;
let broker: BrokerProcess;
let pool: Pool;

beforeAll(async () => {
  const store = await freshStore('mysql');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  pool = createPool(await freshMysqlDatabase());
  await pool.query(
    'create table applied (ordering_key varchar(20), number int, sequence int, ' +
      'place int auto_increment unique, primary key (ordering_key, number))',
  );
});
afterAll(async () => {
  await broker.stop();
  await pool.end();
  await deleteOrdered(rabbitmqUrl(), { topic, group, ordered: { partitions } });
  await onChannel(rabbitmqUrl(), async (channel) => {
    for (const queue of [
      retryQueueName(topic, group, 10),
      queueName(topic, group),
      deadLetterQueueName(topic, group),
    ]) {
      await channel.deleteQueue(queue);
    }
    await channel.deleteExchange(topic);
  });
});

test('what producers commit in order is applied in order, through broker, RabbitMQ and failures', async () => {
  const keys = keysNamed(10);
  const watch = new KeyWatch();
  const withoutKey: unknown[] = [];
  const consumer = createConsumer({ rabbitmq: rabbitmqUrl(), logger: () => undefined });
  const options = { topic, group, retryDelaysMs: [10], ordered: { partitions } };
  await consumer.subscribe<{ number: number }>(options, async (message) => {
    const { orderingKey, sequence, data } = message;
    if (orderingKey === undefined) {
      withoutKey.push(data);
      return;
    }
    const end = watch.begin(message);
    await pause(Math.random() * 2);
    if (message.attempts === 0 && Math.random() < 0.2) {
      end('failed');
      throw new Error('not yet');
    }
    const values = [orderingKey, data.number, sequence];
    const sql = 'insert into applied (ordering_key, number, sequence) values (?, ?, ?)';
    await pool.query(sql, values);
    end('done');
  });
  const producer = createProducer({ brokers: [broker.url], producerGroup: 'accounts' });
  await producer.registerGroup({ checkUrls: [] });
  // Each key has one caller, who goes on when the broker has the message.
  const sending = keys.map(async (orderingKey) => {
    for (let number = 1; number <= 20; number += 1) {
      await producer.send({ messages: [{ topic, orderingKey, data: { number } }] });
    }
  });
  await Promise.all(sending);
  await producer.send({ messages: [{ topic, data: 'no key' }] });
  await until('all were applied', () => watch.isDone(keys, 20) && withoutKey.length === 1, 30_000);
  await producer.close();
  await consumer.close();
  for (const key of keys) {
    const [rows] = await pool.query<RowDataPacket[]>(
      'select number, sequence from applied where ordering_key = ? order by place',
      [key],
    );
    expect(rows.map(({ number }) => number)).toEqual(numbersTo(20));
    expect(rows.map(({ sequence }) => sequence)).toEqual(numbersTo(20));
  }
  expect(watch.overlaps).toEqual([]);
  expect(withoutKey).toEqual(['no key']);
});

import { createConsumer, PermanentError } from '@escrowmq/consumer';
import { freePorts } from '@escrowmq/local-servers';
import { createProducer } from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createPool, type RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import {
  type PageFolder,
  type PageProgram,
  pageFolder,
  snippetsOf,
} from '../support/page-program.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/* docs/delivery.md, run: each snippet is a program with a real broker. */

const snippet = await snippetsOf('delivery.md');

const SIGNING_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

let broker: BrokerProcess;
let store: Awaited<ReturnType<typeof freshStore>>;
let folder: PageFolder;
let program: PageProgram | undefined;
/** The topics of the page are this run's own: queues outlive it. */
let suffix: string;

beforeAll(async () => {
  folder = await pageFolder('delivery-page');
});
beforeEach(async () => {
  suffix = uuidv7();
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
});
afterEach(async () => {
  program?.kill();
  await broker.stop();
  await store.remove();
});
afterAll(() => folder.remove());

/** Starts the snippet below a heading, and waits until it is through. */
async function run(heading: string, env: Record<string, string> = {}): Promise<PageProgram> {
  const [port] = await freePorts(1);
  const source = snippet(heading)
    .replace(/topic: '(\w+)'/g, `topic: '$1-${suffix}'`)
    .replaceAll(/80[89]0/g, String(port));
  program = await folder.run(source, { BROKER_URL: broker.url, SIGNING_SECRET, ...env });
  return program;
}

const bound = (topic: string): Promise<BoundQueue> =>
  bindQueue(rabbitmqUrl(), [{ topic: `${topic}-${suffix}`, routingKey: '#' }]);

test('delayed messages, and cancelling', async () => {
  const queue = await bound('order');
  const { lines } = await run('## Delayed messages');
  expect(lines()).toContain('[ 1 ]');
  await until('what has no delay arrives', () => queue.received.length === 1);
  await queue.close();
});

test('order per key', async () => {
  const queue = await bound('order');
  await run('## Order per key');
  await until('all have arrived', () => queue.received.length === 3);
  expect(queue.received.map(({ fields }) => fields.routingKey)).toEqual([
    'placed',
    'paid',
    'shipped',
  ]);
  await queue.close();
});

test('receipts and waiting', async () => {
  const consumer = createConsumer({ rabbitmq: rabbitmqUrl() });
  await consumer.subscribe({ topic: `order-${suffix}`, group: 'stock' }, () => undefined);
  const { lines } = await run('## Receipts and waiting');
  expect(lines()[0]).toBe('true [');
  await consumer.close();
});

test('compensation', async () => {
  const databaseUrl = await freshMysqlDatabase();
  const pool = createPool(databaseUrl);
  await pool.query('create table orders (id int primary key, state varchar(10))');
  const consumer = createConsumer({ rabbitmq: rabbitmqUrl() });
  await consumer.subscribe({ topic: `order-${suffix}`, group: 'stock' }, () => {
    throw new PermanentError('there is nothing left');
  });
  await run('## Compensation', { DATABASE_URL: databaseUrl });
  await until('the order is cancelled', async () => {
    const [[order]] = await pool.query<RowDataPacket[]>('select state from orders');
    return order?.state === 'cancelled';
  });
  expect(program?.lines()).toContain(
    'stock refused order 7: PermanentError: there is nothing left',
  );
  await consumer.close();
  await pool.end();
});

test('webhooks', async () => {
  await run('## Webhooks');
  const producer = createProducer({ brokers: [broker.url], producerGroup: 'page' });
  await producer.registerGroup({ checkUrls: [] });
  const topic = `orders-${suffix}`;
  const { id } = await producer.send({
    messages: [{ topic, routingKey: 'placed', data: { orderId: 7 } }],
  });
  await until(
    'the endpoint was called',
    () => program?.lines().includes(`${id}-0 { orderId: 7 }`) === true,
  );
  await producer.close();
});

test('CloudEvents', async () => {
  const queue = await bound('user');
  await run('## CloudEvents');
  await until('it has arrived', () => queue.received.length === 1);
  expect(queue.received[0]?.properties.headers).toMatchObject({
    'cloudEvents:type': 'com.example.user.registered',
    'cloudEvents:subject': 'users/7',
    'cloudEvents:source': '/producer-groups/accounts',
  });
  await queue.close();
});

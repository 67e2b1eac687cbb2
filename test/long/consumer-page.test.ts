import { createProducer, type MessageInput, type Producer } from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import {
  type PageFolder,
  type PageProgram,
  pageFolder,
  snippetsOf,
} from '../support/page-program.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/* docs/consumer.md, run: each snippet is a program, and gets messages from a real broker. */

const snippet = await snippetsOf('consumer.md');

let broker: BrokerProcess;
let store: Awaited<ReturnType<typeof freshStore>>;
let producer: Producer;
let databaseUrl: string;
let pool: Pool;
let folder: PageFolder;
let program: PageProgram | undefined;
/** The topics of the page are this run's own: queues outlive it. */
let suffix: string;

beforeAll(async () => {
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  producer = createProducer({ brokers: [broker.url], producerGroup: 'page' });
  await producer.registerGroup({ checkUrls: [] });
  databaseUrl = await freshMysqlDatabase();
  pool = createPool(databaseUrl);
  folder = await pageFolder('consumer-page');
});
beforeEach(() => {
  suffix = uuidv7();
});
afterEach(() => program?.kill());
afterAll(async () => {
  await producer.close();
  await pool.end();
  await broker.stop();
  await store.remove();
  await folder.remove();
});

/** Starts the snippet below a heading, and waits until it is through: it consumes by then. */
async function run(heading: string): Promise<PageProgram> {
  const source = snippet(heading).replace(/(topic: |defineTopic\()'(\w+)'/g, `$1'$2-${suffix}'`);
  const env = {
    BROKER_URL: broker.url,
    DATABASE_URL: databaseUrl,
    RABBITMQ_URL: rabbitmqUrl(),
  };
  program = await folder.run(source, env);
  return program;
}

const send = (topic: string, message: Omit<MessageInput, 'topic'>) =>
  producer.send({ messages: [{ topic: `${topic}-${suffix}`, ...message }] });

const prints = (line: string) =>
  until(`it prints ${line}`, () => program?.lines().includes(line) === true);

const values = async (sql: string) =>
  (await pool.query<RowDataPacket[]>(sql))[0].map((row) => Object.values(row)[0]);

test('consume', async () => {
  await run('## Consume');
  await send('order', { data: { orderId: 7, paid: true, address: 'Quay 1' } });
  await prints('order 7 goes to Quay 1');
  await send('order', { data: { orderId: 8 } });
  await until('the order without an address is a dead letter', () =>
    String(program?.lines()).includes("event: 'deadLettered'"),
  );
});

test('N07: move dead letters back', async () => {
  await run('## Consume');
  const consuming = program;
  await send('order', { data: { orderId: 8 } });
  const deaths = () => String(consuming?.lines()).split("event: 'deadLettered'").length - 1;
  await until('it is a dead letter', () => deaths() === 1);
  const moving = await run('### Move dead letters back');
  expect(moving.lines().filter((line) => line.startsWith('moved'))).toHaveLength(1);
  await until('it was handled again, and is dead again', () => deaths() === 2);
  consuming?.kill();
});

test('pause', async () => {
  const { lines } = await run('### Pause');
  expect(lines()).toEqual(['ready']);
});

test('batches', async () => {
  await run('### Batches');
  await send('order', { data: { orderId: 7 } });
  await prints('indexed 7');
});

test('apply each message once', async () => {
  await pool.query('create table stock (product_id int primary key, count int)');
  await pool.query('insert into stock values (3, 10)');
  await run('## Apply each message once');
  await send('order', { data: { productId: 3, count: 2 } });
  await until('the stock is less', async () => (await values('select count from stock'))[0] === 8);
});

test('apply a batch once', async () => {
  await pool.query('create table visits (count int)');
  await pool.query('insert into visits values (0)');
  await run('### Several messages in one transaction');
  await Promise.all([1, 2, 3].map((visit) => send('visit', { data: { visit } })));
  await until('all are counted', async () => (await values('select count from visits'))[0] === 3);
});

test('N15: housekeeping', async () => {
  const { lines } = await run('## Housekeeping');
  expect(lines()).toEqual(['ready']);
});

test('keep the latest state', async () => {
  await pool.query('create table price (product_id int primary key, price int)');
  await run('## Keep the latest state');
  await send('price', { data: { productId: 3, price: 12, version: 2 } });
  await until(
    'the price is there',
    async () => (await values('select price from price'))[0] === 12,
  );
  await send('price', { data: { productId: 3, price: 11, version: 1 } });
  await send('price', { data: { productId: 4, price: 5, version: 1 } });
  await until('another price is there', async () =>
    (await values('select price from price order by product_id')).includes(5),
  );
  expect(await values('select price from price order by product_id')).toEqual([12, 5]);
});

test('consume in order', async () => {
  await run('## Consume in order');
  for (const change of [1, 2, 3]) {
    await send('account', { data: { change }, orderingKey: 'seven' });
  }
  await prints('account seven: change 3 is {"change":3}');
  const lines = program?.lines().filter((line) => line.startsWith('account')) ?? [];
  expect(lines.map((line) => line.split(' ')[3])).toEqual(['1', '2', '3']);
});

test('an ephemeral subscription, and traces', async () => {
  await run('## Every instance: ephemeral subscriptions');
  program?.kill();
  await run('## Traces');
});

test('N10: typed topics', async () => {
  await run('## Typed topics');
  const sent = { routingKey: 'sent', data: { parcelId: 7, at: '2030-01-02T03:04:05.678Z' } };
  await send('parcel', sent);
  await prints('parcel 7 was sent in 2030');
  const moved = { routingKey: 'moved', headers: { 'schema-version': 2 } };
  await send('parcel', { ...moved, data: { city: 'Bremen', country: 'DE' } });
  await prints('to Bremen');
  await send('parcel', { ...sent, data: { parcelId: 'seven' } });
  await until('what breaks its schema is a dead letter', () =>
    String(program?.lines()).includes("reason: 'mismatch'"),
  );
});

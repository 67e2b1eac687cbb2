import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { freePorts } from '@escrowmq/local-servers';
import { ensureBarrierTable, ensureCompensationTable } from '@escrowmq/producer';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { startCompensationEndpoint } from '../support/compensation-endpoint.js';
import { onChannel } from '../support/rabbit.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const CHILD = fileURLToPath(new URL('../support/compensating-child.mjs', import.meta.url));
/** The endpoint answers from this process, which a busy machine may keep waiting for a second. */
const POLICY = { firstDelayMs: 0, delayMsMax: 200, timeoutMs: 10_000 };

const topic = uniqueName('orders');
let store: Awaited<ReturnType<typeof freshStore>>;
let broker: BrokerProcess;
let queue: BoundQueue;
/** Of the broker's store. */
let inside: Pool;

beforeAll(async () => {
  store = await freshStore('mysql');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  inside = createPool(store.url);
  queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
});
afterAll(async () => {
  await inside.end();
  await queue.close();
  await broker.stop();
  await store.remove();
});

const register = async (group: string, compensationUrls: string[]) =>
  (
    await call(`${broker.url}/v1/producer-groups/${group}`, 'PUT', {
      checkUrls: [],
      compensationUrls,
      checkPolicy: POLICY,
    })
  ).body;

/** A message that arrived, and that its group gives up. */
async function failed(group: string): Promise<string> {
  const { body } = await call(`${broker.url}/v1/messages`, 'POST', {
    producerGroup: group,
    expects: ['stock'],
    messages: [{ topic, data: 1, compensate: true }],
  });
  const arrived = () =>
    queue.received.find(({ properties }) => properties.messageId === `${body.id}-0`);
  await until('it arrives', () => arrived() !== undefined);
  const receipt = { messageId: `${body.id}-0`, consumerGroup: 'stock', kind: 'failed' };
  await onChannel(rabbitmqUrl(), async (channel) => {
    const receipts = Buffer.from(JSON.stringify({ receipts: [receipt] }));
    channel.sendToQueue(String(arrived()?.properties.replyTo), receipts, { persistent: true });
    await channel.waitForConfirms();
  });
  return body.id;
}

const compensationOf = async (id: string) => (await view(broker.url, id)).compensations[0];
const isDone = async (id: string) => (await compensationOf(id))?.state === 'done';

test('a broker that dies between the receipt and the call makes the call when it is back', async () => {
  const group = uniqueName('shop');
  const endpoint = await startCompensationEndpoint();
  await register(group, []);
  const id = await failed(group);
  await until('it is owed', async () => (await compensationOf(id))?.state === 'owed');
  await broker.kill();
  await broker.start();
  await register(group, [endpoint.url]);
  await until('it is compensated', () => isDone(id));
  expect(endpoint.asked).toHaveLength(1);
  await endpoint.close();
});

test('a broker that dies in the call makes it again when its lease is over, and counts both', async () => {
  const group = uniqueName('shop');
  const endpoint = await startCompensationEndpoint();
  const { answer } = endpoint;
  endpoint.answer = () => undefined;
  await register(group, [endpoint.url]);
  const id = await failed(group);
  await until('it is called', () => endpoint.asked.length === 1);
  await broker.kill();
  endpoint.answer = answer;
  // As if the time of the lease had passed.
  await inside.query('update escrow_compensation set due_at = 0 where state = ?', ['owed']);
  await broker.start();
  await until('it is compensated', () => isDone(id));
  expect(endpoint.asked.map(({ attempt }) => attempt)).toEqual([1, 2]);
  expect(await compensationOf(id)).toMatchObject({ attempts: 2 });
  await endpoint.close();
});

test.each([
  ['inside its callback', 'inside'],
  ['between COMMIT and its answer', 'answering'],
])('a producer that dies %s has compensated once in the end', async (_, when) => {
  const group = uniqueName('shop');
  const url = await freshMysqlDatabase();
  const pool = createPool(url);
  await ensureBarrierTable(pool);
  await ensureCompensationTable(pool);
  await pool.query('create table refund (message int not null)');
  const refunds = async () => {
    const [rows] = await pool.query<RowDataPacket[]>('select count(*) as made from refund');
    return Number(rows[0]?.made);
  };
  const [port = 0] = await freePorts(1);
  const { signingSecret } = await register(group, [`http://127.0.0.1:${port}/`]);
  const start = async (dies: string): Promise<ChildProcess> => {
    const child = spawn(process.execPath, [CHILD, url, String(port), signingSecret, dies], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    await once(child.stdout as NodeJS.ReadableStream, 'data');
    return child;
  };

  const first = await start(when);
  const dead = once(first, 'exit');
  const id = await failed(group);
  expect(await dead).toEqual([null, 'SIGKILL']);
  expect(await refunds()).toBe(when === 'inside' ? 0 : 1);
  expect(await compensationOf(id)).toMatchObject({ state: 'owed' });

  const second = await start('never');
  await until('it is compensated', () => isDone(id), 30_000);
  expect(await refunds()).toBe(1);
  const ended = once(second, 'exit');
  second.kill();
  await ended;
  await pool.end();
});

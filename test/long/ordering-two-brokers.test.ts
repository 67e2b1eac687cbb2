import { startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import { HEADERS } from '@escrowmq/protocol';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import amqplib, { type Channel, type ChannelModel } from 'amqplib';
import { call, registerGroup } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { newId } from '../support/store-fixtures.js';
import { until } from '../support/until.js';

const KEYS = 1_000;
const PER_KEY = 50;
const MESSAGES = KEYS * PER_KEY;
const BATCH = 50;
const CALLERS = 4;
/** On a busy machine with two cores; on an idle one it takes a fifth of that. */
const PATIENCE_MS = 480_000;

const topic = uniqueName('ordered');
let brokers: BrokerProcess[];
let proxy: TcpProxy;
let connection: ChannelModel;
let channel: Channel;
let queue: string;

/** What arrived, each message counted the first time it came. */
const seen = new Set<string>();
const nextOf = new Map<string, number>();
const outOfOrder: string[] = [];
let repeats = 0;

beforeAll(async () => {
  const store = await freshStore('mysql');
  proxy = await startTcpProxy(rabbitmqUrl());
  brokers = [];
  for (let n = 0; n < 2; n += 1) {
    brokers.push(await startBrokerProcess({ store: store.url, rabbitmq: proxy.url }));
  }
  await registerGroup(brokers[0]?.url ?? '', 'accounts');
  connection = await amqplib.connect(rabbitmqUrl());
  channel = await connection.createChannel();
  await channel.assertExchange(topic, 'topic', { durable: true });
  ({ queue } = await channel.assertQueue('', { exclusive: true }));
  await channel.bindQueue(queue, topic, '#');
  await channel.consume(
    queue,
    (message) => {
      if (message === null) return;
      const { messageId, headers } = message.properties;
      if (seen.has(messageId)) {
        repeats += 1;
        return;
      }
      seen.add(messageId);
      const key = String(headers?.[HEADERS.orderingKey]);
      const sequence = Number(headers?.[HEADERS.sequence]);
      const wanted = (nextOf.get(key) ?? 0) + 1;
      if (sequence !== wanted) outOfOrder.push(`${key}: ${sequence} where ${wanted} was next`);
      nextOf.set(key, sequence);
    },
    { noAck: true },
  );
}, 120_000);

afterAll(async () => {
  for (const broker of brokers) await broker.stop();
  await channel.deleteExchange(topic);
  await connection.close();
  await proxy.close();
}, 120_000);

/** Half of them sent, half prepared and committed; repeated with the same ids until all are taken. */
async function post(numbers: readonly number[]): Promise<void> {
  const operations = numbers.flatMap((n) => {
    const id = newId();
    const messages = [{ topic, data: { n }, orderingKey: `key-${n % KEYS}` }];
    const content = { id, producerGroup: 'accounts', messages };
    return n % 2 === 0
      ? [{ op: 'send', ...content }]
      : [
          { op: 'prepare', ...content },
          { op: 'commit', id },
        ];
  });
  for (let attempt = numbers[0] ?? 0; ; attempt += 1) {
    const broker = brokers[attempt % brokers.length]?.url ?? '';
    const answer = await call(`${broker}/v1/batch`, 'POST', { operations }).catch(() => undefined);
    const results: { status: number }[] = answer?.body.results ?? [];
    if (results.length > 0 && results.every(({ status }) => status < 300)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function someReturned(): Promise<boolean> {
  const pages = await Promise.all(
    brokers.map(async ({ url }) => (await fetch(`${url}/metrics`)).text()),
  );
  return pages.some((page) => /escrow_publishes_total\{outcome="returned"\} [1-9]/.test(page));
}

test(
  `${KEYS} keys keep their order through cut connections, missing bindings and a killed broker (F60)`,
  async () => {
    let next = 0;
    const callers = Array.from({ length: CALLERS }, async () => {
      while (next < MESSAGES) {
        const from = next;
        next += BATCH;
        await post(Array.from({ length: BATCH }, (_, index) => from + index));
      }
    });
    const at = (share: number) =>
      until(`${share} arrived`, () => seen.size >= share * MESSAGES, PATIENCE_MS);

    // The confirms of what is on its way are lost: it is published again.
    for (const share of [0.05, 0.15, 0.25]) {
      await at(share);
      await proxy.cutNext(HEADERS.sequence, 'after');
    }
    await at(0.3);
    await channel.unbindQueue(queue, topic, '#');
    const there = seen.size;
    await until('messages come back, as nobody is bound', someReturned, PATIENCE_MS);
    await channel.bindQueue(queue, topic, '#');
    await until('it goes on', () => seen.size > there, PATIENCE_MS);
    await at(0.4);
    await brokers[1]?.kill();
    await at(0.5);
    await brokers[1]?.start();
    await Promise.all(callers);
    await until('all have arrived', () => seen.size === MESSAGES, PATIENCE_MS);

    expect(outOfOrder).toEqual([]);
    expect(nextOf.size).toBe(KEYS);
    expect(new Set(nextOf.values())).toEqual(new Set([PER_KEY]));
    // The faults did happen.
    expect(repeats).toBeGreaterThan(0);
  },
  2 * PATIENCE_MS,
);

import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { connect } from 'amqplib';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { until } from '../support/until.js';
import {
  type ReceivedPost,
  startWebhookEndpoint,
  status,
  type WebhookEndpoint,
} from '../support/webhook-endpoint.js';

/*
 * Webhooks while something dies: an instance, RabbitMQ, or RabbitMQ before the broker starts.
 */

const GROUP = 'orders-service';
const TOPIC = 'orders';
/** Longer than the time after which an instance looks at what others have changed. */
const SEEN_MS_MAX = 20_000;

let rabbitmq: PrivateRabbitmq;
let store: Awaited<ReturnType<typeof freshStore>>;
let endpoint: WebhookEndpoint;
const brokers: BrokerProcess[] = [];

beforeEach(async () => {
  rabbitmq = await startPrivateRabbitmq();
  store = await freshStore('mysql');
  endpoint = await startWebhookEndpoint();
});
afterEach(async () => {
  for (const broker of brokers.splice(0)) await broker.kill();
  await endpoint.close();
  await store.remove();
  await rabbitmq.remove();
});

async function start(): Promise<BrokerProcess> {
  const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmq.url });
  brokers.push(broker);
  await registerGroup(broker.url, GROUP);
  return broker;
}

const save = (broker: BrokerProcess, changes: object = {}) =>
  call(`${broker.url}/v1/webhooks/billing`, 'PUT', {
    topic: TOPIC,
    url: endpoint.url,
    retry: { delaysMs: [200] },
    ...changes,
  });
const send = (broker: BrokerProcess, message: object = {}) =>
  call(`${broker.url}/v1/messages`, 'POST', {
    producerGroup: GROUP,
    messages: [{ topic: TOPIC, data: 1, ...message }],
  });
/** Instances that consume the webhook's queue. */
async function consumers(): Promise<number> {
  const connection = await connect(rabbitmq.url);
  const channel = await connection.createChannel();
  const { consumerCount } = await channel.checkQueue(queueName(TOPIC, 'billing'));
  await connection.close();
  return consumerCount;
}
const stateOf = async (broker: BrokerProcess) =>
  (await call(`${broker.url}/v1/webhooks/billing`)).body.state;
const idsOf = (posts: ReceivedPost[]) => posts.map(({ headers }) => headers['webhook-id']);

test('what an instance was calling when it was killed is called by another, under the same id', async () => {
  const [first, second] = [await start(), await start()];
  await save(first, { timeoutMs: 3_000 });
  // Neither answers: each instance holds what it has been given.
  endpoint.answer = () => {};
  const ids: string[] = [];
  for (let number = 0; number < 8; number += 1) ids.push(`${(await send(second)).body.id}-0`);
  await until('both instances call', () => endpoint.received.length >= 8, SEEN_MS_MAX);
  endpoint.answer = status(204);
  const before = endpoint.received.length;
  await first.kill();
  const calledAgain = () => new Set(idsOf(endpoint.received.slice(before)));
  await until('each is called again', () => calledAgain().size >= ids.length, SEEN_MS_MAX);
  expect(calledAgain()).toEqual(new Set(ids));
  await send(second);
  await until('the other goes on', () => !ids.includes(String(idsOf(endpoint.received).at(-1))));
});

test('410 to one instance stops the calls of all, and a change at one is seen by all', async () => {
  const [first, second] = [await start(), await start()];
  await save(first, { concurrency: 1 });
  endpoint.answer = status(410);
  await until('one is told to go away', async () => {
    await send(second, { ifUnrouted: 'drop' });
    return (await stateOf(second)) === 'disabled';
  });
  expect(await stateOf(first)).toBe('disabled');
  await until('both have seen it', async () => (await consumers()) === 0, SEEN_MS_MAX);
  const calls = endpoint.received.length;
  for (let number = 0; number < 4; number += 1) await send(first);
  endpoint.answer = status(204);
  await save(second, { concurrency: 1, enabled: true });
  await until('what waited is delivered', () => endpoint.received.length >= calls + 4, SEEN_MS_MAX);

  expect((await call(`${second.url}/v1/webhooks/billing`, 'DELETE')).status).toBe(200);
  await until(
    'no instance binds it any more',
    async () => {
      const { body: sent } = await send(first, { ifUnrouted: 'drop' });
      await until('it left', async () => (await view(first.url, sent.id)).state === 'forwarded');
      return (await view(first.url, sent.id)).messages[0]?.state === 'unrouted';
    },
    SEEN_MS_MAX,
  );
});

test('RabbitMQ may be away when the broker starts and later, and a webhook comes back with it', async () => {
  const before = await start();
  await save(before);
  await until('it is bound', async () => {
    await send(before, { ifUnrouted: 'drop' });
    return endpoint.received.length > 0;
  });
  await before.stop();
  await rabbitmq.stop();

  const broker = await start();
  const { body: sent } = await send(broker);
  expect((await call(`${broker.url}/v1/webhooks/billing`, 'DELETE')).body).toMatchObject({
    code: 'RABBITMQ_UNAVAILABLE',
  });
  expect(await stateOf(broker)).toBe('disabled');
  await save(broker, { enabled: true });
  await rabbitmq.restart();
  await until('it is delivered', () => idsOf(endpoint.received).includes(`${sent.id}-0`), 60_000);

  await rabbitmq.stop();
  const { body: later } = await send(broker);
  await rabbitmq.restart();
  await until('so is this', () => idsOf(endpoint.received).includes(`${later.id}-0`), 60_000);
  expect(await broker.stop()).toBe(0);
}, 180_000);

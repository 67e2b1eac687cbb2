import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type ChannelModel, connect } from 'amqplib';
import { Webhook } from 'standardwebhooks';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';
import {
  type ReceivedPost,
  startWebhookEndpoint,
  status,
  type WebhookEndpoint,
} from '../support/webhook-endpoint.js';

const PRODUCER_GROUP = 'orders-service';
/** Short, and few: each is a queue. */
const DELAYS_MS = [200, 600];

let store: Awaited<ReturnType<typeof freshStore>>;
let broker: BrokerProcess;
let rabbit: ChannelModel;
let topic: string;
let endpoint: WebhookEndpoint;
/** The webhook of most tests, and its group. */
let billing: string;
/** Webhooks of the current test, by name. */
const made: string[] = [];

beforeAll(async () => {
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  await registerGroup(broker.url, PRODUCER_GROUP);
  rabbit = await connect(rabbitmqUrl());
});
afterAll(async () => {
  await broker.stop();
  await rabbit.close();
  await store.remove();
});
beforeEach(async () => {
  topic = uniqueName('orders');
  billing = uniqueName('billing');
  endpoint = await startWebhookEndpoint();
});
afterEach(async () => {
  for (const name of made) await call(hook(name), 'DELETE');
  const channel = await rabbit.createChannel();
  for (const name of made) {
    for (const queue of queuesOf(name)) await channel.deleteQueue(queue);
  }
  await channel.deleteExchange(topic);
  await channel.close();
  made.length = 0;
  await endpoint.close();
});

const hook = (name: string) => `${broker.url}/v1/webhooks/${name}`;
const queuesOf = (group: string) => [
  queueName(topic, group),
  ...DELAYS_MS.map((delayMs) => retryQueueName(topic, group, delayMs)),
  deadLetterQueueName(topic, group),
];

/** Changes or creates one on the test's topic. */
async function save(name: string, changes: object = {}) {
  if (!made.includes(name)) made.push(name);
  const retry = { delaysMs: DELAYS_MS, jitter: 0 };
  return call(hook(name), 'PUT', { topic, url: endpoint.url, retry, ...changes });
}

/** Creates one whose queue is bound, and resolves with its secret. */
async function create(name: string, changes: object = {}): Promise<string> {
  const { status: answered, body } = await save(name, changes);
  expect({ answered, body }).toMatchObject({ answered: 201 });
  await until('its queue is there', async () => (await count(queueName(topic, name))) >= 0);
  // A message that is published before the binding would not be for it.
  await until('it is bound', async () => {
    const { body: sent } = await send({ routingKey: 'probe', ifUnrouted: 'drop', data: 'probe' });
    await until(
      'it is forwarded',
      async () => (await view(broker.url, sent.id)).state !== 'committed',
    );
    return (await view(broker.url, sent.id)).messages[0]?.state === 'forwarded';
  });
  return body.signingSecret;
}

const send = (message: object = {}, transaction: object = {}) =>
  call(`${broker.url}/v1/messages`, 'POST', {
    producerGroup: PRODUCER_GROUP,
    messages: [{ topic, routingKey: 'placed', data: { orderId: 7 }, ...message }],
    ...transaction,
  });

/** Messages ready in a queue; -1 when it is not there. */
async function count(queue: string): Promise<number> {
  const channel = await rabbit.createChannel();
  channel.on('error', () => {});
  try {
    const { messageCount } = await channel.checkQueue(queue);
    await channel.close();
    return messageCount;
  } catch {
    return -1;
  }
}

const isProbe = ({ body }: ReceivedPost) => body.toString() === '"probe"';
/** What the endpoint has received of the test's own messages. */
const received = (of = endpoint) => of.received.filter((post) => !isProbe(post));

const alerts = (kind: string, webhook: string) =>
  broker.log.filter(
    (entry) => entry.event === 'alert' && entry.kind === kind && entry.webhook === webhook,
  );

test('a message is delivered as it is, signed, and the group has consumed it', async () => {
  const secret = await create(billing);
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const { body: sent } = await call(
    `${broker.url}/v1/messages`,
    'POST',
    {
      producerGroup: PRODUCER_GROUP,
      messages: [
        { topic, routingKey: 'placed.中', data: { orderId: 7 }, headers: { tenant: 'a' } },
      ],
      expects: [billing],
    },
    { traceparent },
  );
  await until('it is delivered', () => received().length > 0);
  const [post] = received();
  const { headers = {}, body = Buffer.alloc(0) } = post ?? {};
  expect(body.toString()).toBe('{"orderId":7}');
  expect(new Webhook(secret).verify(body, headers as Record<string, string>)).toEqual({
    orderId: 7,
  });
  expect(headers).toMatchObject({
    'webhook-id': `${sent.id}-0`,
    'content-type': 'application/json',
    'user-agent': 'escrowmq-broker',
    'escrow-transaction-id': sent.id,
    'escrow-message-number': '0',
    'escrow-topic': topic,
    'escrow-routing-key': 'placed.%E4%B8%AD',
    'escrow-producer-group': PRODUCER_GROUP,
    'escrow-attempt': '1',
    'escrow-prepared-at': expect.stringMatching(/^\d{13}$/),
    traceparent,
  });
  expect(headers).not.toHaveProperty('tenant');
  await until('it is settled', async () => (await view(broker.url, sent.id)).settled);
});

test('bytes that are no text are signed as they are', async () => {
  const secret = await create(billing);
  const bytes = Buffer.from([0xff, 0x00, 0xfe, 0x41]);
  const { createHmac } = await import('node:crypto');
  await send({ data: undefined, dataBase64: bytes.toString('base64'), contentType: 'image/png' });
  await until('it is delivered', () => received().length > 0);
  const [post] = received();
  const { headers = {}, body } = post ?? {};
  expect(body).toEqual(bytes);
  expect(headers['content-type']).toBe('image/png');
  const hmac = createHmac('sha256', Buffer.from(secret.slice('whsec_'.length), 'base64'));
  hmac.update(`${headers['webhook-id']}.${headers['webhook-timestamp']}.`).update(bytes);
  expect(headers['webhook-signature']).toBe(`v1,${hmac.digest('base64')}`);
});

test('a failed call is repeated with growing pauses and one id, until it succeeds', async () => {
  await create(billing);
  const answers = [status(500), status(404), status(200)];
  endpoint.answer = (post, response) =>
    isProbe(post) ? status(200)(post, response) : answers.shift()?.(post, response);
  await send();
  await until('it has been delivered', () => received().length === 3);
  const posts = received();
  expect(posts.map(({ headers }) => headers['escrow-attempt'])).toEqual(['1', '2', '3']);
  expect(new Set(posts.map(({ headers }) => headers['webhook-id'])).size).toBe(1);
  const [first = 0, second = 0, third = 0] = posts.map(({ at }) => at);
  expect(second - first).toBeGreaterThanOrEqual(190);
  expect(third - second).toBeGreaterThanOrEqual(590);
});

test('a redirect is not followed', async () => {
  await create(billing);
  const elsewhere = await startWebhookEndpoint();
  try {
    endpoint.answer = (post, response) =>
      isProbe(post) || post.headers['escrow-attempt'] === '2'
        ? status(200)(post, response)
        : status(307, { location: elsewhere.url })(post, response);
    await send();
    await until('it is tried again', () => received().length === 2);
    expect(elsewhere.received).toEqual([]);
  } finally {
    await elsewhere.close();
  }
});

test('an endpoint that asks for patience gets it, and no attempt is spent', async () => {
  await create(billing, { retry: { delaysMs: [200], jitter: 0 } });
  let patience = 0;
  endpoint.answer = (post, response) => {
    if (isProbe(post)) return status(200)(post, response);
    patience += 1;
    return patience <= 2
      ? status(patience === 1 ? 429 : 503, { 'retry-after': '1' })(post, response)
      : status(200)(post, response);
  };
  await send();
  await until('it has been delivered', () => received().length === 3);
  const posts = received();
  expect(posts.map(({ headers }) => headers['escrow-attempt'])).toEqual(['1', '1', '1']);
  posts.slice(1).forEach(({ at }, index) => {
    expect(at - (posts[index]?.at ?? 0)).toBeGreaterThanOrEqual(950);
  });
});

describe('an endpoint that says 410', () => {
  test('is disabled with an alert, keeps its messages, and others flow', async () => {
    const other = await startWebhookEndpoint();
    try {
      await create('gone');
      await create('other', { url: other.url });
      endpoint.answer = status(410);
      const { body: sent } = await send();
      await until(
        'it is disabled',
        async () => (await call(hook('gone'))).body.state === 'disabled',
      );
      expect((await call(hook('gone'))).body.disabled).toEqual({
        since: expect.any(Number),
        reason: 'the endpoint answered HTTP 410',
      });
      await until('there is an alert', () => alerts('webhookDisabled', 'gone').length === 1);
      await until('the other has it', () => received(other).length === 1);
      // What comes while it is disabled waits beside the message that was refused.
      await send();
      const calls = received().length;
      await until('both wait', async () => (await count(queueName(topic, 'gone'))) === 2, 15_000);
      expect(received()).toHaveLength(calls);

      endpoint.answer = status(200);
      const { body: enabled } = await save('gone', { enabled: true });
      expect(enabled).toMatchObject({ state: 'active', applied: true });
      await until('both are delivered', () => received().length === calls + 2);
      const ids = received().map(({ headers }) => headers['webhook-id']);
      expect(ids).toContain(`${sent.id}-0`);
    } finally {
      await other.close();
    }
  });
});

test('a dead endpoint holds up no other', async () => {
  const dead = await startWebhookEndpoint();
  try {
    // It takes connections and never answers.
    dead.answer = () => {};
    await create('dead', { url: dead.url, concurrency: 2, timeoutMs: 30_000 });
    await create('living');
    await Promise.all(Array.from({ length: 20 }, () => send()));
    await until('the living one has all', () => received().length === 20);
    await send();
    // Long before a call to the dead one is given up.
    await until('it has one more', () => received().length === 21);
    await until('the dead one is called', () => dead.received.length >= 2);
    expect(dead.received).toHaveLength(2);
  } finally {
    await dead.close();
  }
});

test('after its last attempt a message is a dead letter with its cause, with an alert', async () => {
  await create(billing);
  endpoint.answer = status(500);
  const { body: sent } = await send({}, { expects: [billing] });
  await until('it is given up', () => alerts('webhookGaveUp', billing).length > 0);
  expect(received()).toHaveLength(3);
  expect(alerts('webhookGaveUp', billing)[0]).toMatchObject({
    topic,
    consumerGroup: billing,
    messageId: `${sent.id}-0`,
    detail: 'Error: HTTP 500',
  });
  const channel = await rabbit.createChannel();
  const letter = await channel.get(deadLetterQueueName(topic, billing), { noAck: true });
  await channel.close();
  if (letter === false) throw new Error('there is no dead letter');
  expect(letter.content.toString()).toBe('{"orderId":7}');
  expect(letter.properties.headers).toMatchObject({
    'escrow-cause': 'Error: HTTP 500',
    'escrow-dead-reason': 'exhausted',
    'escrow-attempts': 3,
  });
  await until('the producer can see it', async () => {
    const { receipts } = await view(broker.url, sent.id);
    return receipts.some(
      ({ kind, consumerGroup }) => kind === 'failed' && consumerGroup === billing,
    );
  });
  const { body: metrics } = await call(`${broker.url}/metrics`);
  expect(metrics).toContain(`escrow_webhook_calls_total{result="gaveUp",webhook="${billing}"} 1`);
});

test('a message that fails and is too old is given up, whatever attempts are left', async () => {
  // Its first call is made well before it is too old, the second one after.
  await create(billing, { giveUpAfterMs: 2_500, retry: { delaysMs: [2_600, 60_000], jitter: 0 } });
  endpoint.answer = status(500);
  await send();
  await until('it is given up', () => alerts('webhookGaveUp', billing).length > 0);
  expect(received()).toHaveLength(2);
  expect(alerts('webhookGaveUp', billing).at(-1)?.detail).toBe(
    'PermanentError: older than 2500 ms: HTTP 500',
  );
});

test('after a rotation both secrets verify, and the new one counts at once', async () => {
  const before = await create(billing);
  const { body } = await save(billing, { rotateSecret: true });
  expect(body.signingSecret).toMatch(/^whsec_/);
  await until('calls are signed with both', async () => {
    await send();
    return received().some(({ headers }) => String(headers['webhook-signature']).includes(' '));
  });
  const last = received().at(-1);
  for (const secret of [before, body.signingSecret]) {
    const headers = (last?.headers ?? {}) as Record<string, string>;
    expect(new Webhook(secret).verify(last?.body ?? '', headers)).toEqual({ orderId: 7 });
  }
  expect((await call(hook(billing))).body).not.toHaveProperty('signingSecret');
});

test('routing keys that are taken away bring nothing any more', async () => {
  await create(billing, { routingKeys: ['placed', 'paid', 'probe'] });
  await save(billing, { routingKeys: ['paid'] });
  await until('the old key is unbound', async () => {
    const { body: sent } = await send({ ifUnrouted: 'drop' });
    await until('it left', async () => (await view(broker.url, sent.id)).state === 'forwarded');
    return (await view(broker.url, sent.id)).messages[0]?.state === 'unrouted';
  });
  const before = received().length;
  await send({ routingKey: 'paid' });
  await until('the other key still does', () => received().length > before);
});

test('a deleted webhook is called no more, nothing comes into its queue, and the queue stays', async () => {
  await create(billing);
  const { body } = await call(hook(billing), 'DELETE');
  expect(body).toEqual({ name: billing, queues: queuesOf(billing) });
  expect((await call(hook(billing))).body.code).toBe('WEBHOOK_NOT_FOUND');
  expect((await call(hook(billing), 'DELETE')).body.code).toBe('WEBHOOK_NOT_FOUND');
  const { body: sent } = await send({ ifUnrouted: 'drop' });
  await until('it left', async () => (await view(broker.url, sent.id)).state === 'forwarded');
  expect((await view(broker.url, sent.id)).messages[0]?.state).toBe('unrouted');
  expect(await count(queueName(topic, billing))).toBe(0);
  expect(received()).toEqual([]);
});

test.each([
  ['a network that the broker may not call', { url: 'http://169.254.169.254/latest' }],
  ['a host that is not allowed', { url: 'https://example.com/hook' }],
])('%s is refused', async (_what, changes) => {
  const { status: answered, body } = await save('forbidden', changes);
  expect({ answered, code: body.code }).toEqual({ answered: 422, code: 'WEBHOOK_URL_NOT_ALLOWED' });
});

test('topic and group can not change, and a group of a topic has one webhook', async () => {
  await create(billing);
  for (const changes of [{ topic: 'elsewhere' }, { group: 'other' }]) {
    expect(await save(billing, changes)).toMatchObject({
      status: 409,
      body: { code: 'WEBHOOK_CONFLICT', detail: expect.stringContaining(`topic ${topic}`) },
    });
  }
  expect(await save('second', { group: billing })).toMatchObject({
    status: 409,
    body: {
      code: 'WEBHOOK_CONFLICT',
      detail: expect.stringContaining(`the webhook ${billing} has`),
    },
  });
  const { body: list } = await call(`${broker.url}/v1/webhooks`);
  expect(list.webhooks).toMatchObject([{ name: billing, topic, group: billing, version: 0 }]);
});

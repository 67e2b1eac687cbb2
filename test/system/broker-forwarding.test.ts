import { crc32 } from 'node:zlib';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

describe.each(['sqlite', 'mysql'] as const)('on %s', (kind) => {
  const topic = uniqueName('user');
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let queue: BoundQueue;

  beforeAll(async () => {
    store = await freshStore(kind);
    broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: 'registered' }]);
    await registerGroup(broker.url, 'accounts');
  });
  afterAll(async () => {
    await queue.close();
    await broker.stop();
    await store.remove();
  });

  const prepare = async (messages: unknown[], more: object = {}) =>
    call(`${broker.url}/v1/transactions`, 'POST', { producerGroup: 'accounts', messages, ...more });
  const verdict = (id: string, what: 'commit' | 'rollback') =>
    call(`${broker.url}/v1/transactions/${id}/${what}`, 'POST');
  const replyTo = async (id: string) => {
    await until('the message arrives', () => received(id).length > 0);
    return received(id)[0]?.properties.replyTo;
  };
  const received = (id: string) =>
    queue.received.filter(({ properties }) => String(properties.messageId).startsWith(id));

  test('a committed message reaches RabbitMQ as the protocol says, and only after its commit', async () => {
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const prepared = await call(
      `${broker.url}/v1/transactions`,
      'POST',
      {
        producerGroup: 'accounts',
        messages: [
          {
            topic,
            routingKey: 'registered',
            data: { userId: 7, name: 'Zoë' },
            headers: { tenant: 'a' },
          },
        ],
      },
      { traceparent },
    );
    expect(prepared.status).toBe(201);
    const { id } = prepared.body;
    expect(received(id)).toHaveLength(0);

    expect(await verdict(id, 'commit')).toMatchObject({
      status: 200,
      body: { state: 'committed' },
    });
    await until('the message arrives', () => received(id).length > 0);
    const [message] = received(id);
    expect(JSON.parse(String(message?.content))).toEqual({ userId: 7, name: 'Zoë' });
    expect(message?.properties).toMatchObject({
      messageId: `${id}-0`,
      type: 'registered',
      appId: 'accounts',
      contentType: 'application/json',
      deliveryMode: 2,
    });
    expect(message?.properties.headers).toMatchObject({
      tenant: 'a',
      traceparent,
      'escrow-transaction-id': id,
      'escrow-message-number': 0,
      'escrow-message-count': 1,
      'escrow-topic': topic,
      'escrow-routing-key': 'registered',
      'escrow-body-crc32': crc32(message?.content ?? ''),
    });
    await until('it is forwarded', async () => (await view(broker.url, id)).state === 'forwarded');
    expect(received(id)).toHaveLength(1);
  });

  test('bytes arrive as they were given', async () => {
    const bytes = Buffer.from([0, 255, 10, 13, 39, 92, 0]);
    const { body } = await prepare([
      {
        topic,
        routingKey: 'registered',
        dataBase64: bytes.toString('base64'),
        contentType: 'application/x-bytes',
      },
    ]);
    await verdict(body.id, 'commit');
    await until('the message arrives', () => received(body.id).length > 0);
    expect(received(body.id)[0]?.content).toEqual(bytes);
    expect(received(body.id)[0]?.properties.contentType).toBe('application/x-bytes');
  });

  test('nothing of a rolled-back transaction is forwarded, and its decision never reverses (F26)', async () => {
    const { body } = await prepare([{ topic, routingKey: 'registered', data: 1 }]);
    expect((await verdict(body.id, 'rollback')).body.state).toBe('rolledBack');
    expect((await verdict(body.id, 'rollback')).status).toBe(200);
    const late = await verdict(body.id, 'commit');
    expect(late).toMatchObject({
      status: 409,
      body: { code: 'STATE_CONFLICT', decision: { decision: 'rollback', by: 'producer' } },
    });
    // A marker behind it shows that nothing of it was on the way.
    const marker = await prepare([{ topic, routingKey: 'registered', data: 'marker' }]);
    await verdict(marker.body.id, 'commit');
    await until('the marker arrives', () => received(marker.body.id).length > 0);
    expect(received(body.id)).toHaveLength(0);
  });

  test('a repeated prepare and a repeated commit change nothing (F25)', async () => {
    const request = [{ topic, routingKey: 'registered', data: { n: 1 } }];
    const { body } = await prepare(request);
    expect(await prepare(request, { id: body.id })).toMatchObject({ status: 200 });
    await verdict(body.id, 'commit');
    await until(
      'it is forwarded',
      async () => (await view(broker.url, body.id)).state === 'forwarded',
    );
    expect(await verdict(body.id, 'commit')).toMatchObject({
      status: 200,
      body: { state: 'forwarded' },
    });
    expect(await prepare(request, { id: body.id })).toMatchObject({
      status: 200,
      body: { state: 'forwarded' },
    });
    expect(await prepare([{ topic, data: { n: 2 } }], { id: body.id })).toMatchObject({
      status: 409,
      body: { code: 'CONTENT_CONFLICT' },
    });
    await until('it arrives', () => received(body.id).length > 0);
    expect(received(body.id)).toHaveLength(1);
  });

  test('of three messages with the second unroutable, the first and third are published once (F53)', async () => {
    const { body } = await prepare([
      { topic, routingKey: 'registered', data: 0 },
      { topic, routingKey: 'nobody-listens', data: 1 },
      { topic, routingKey: 'registered', data: 2 },
    ]);
    await verdict(body.id, 'commit');
    // Two rounds have failed: had the others been sent again, they would be here twice by now.
    await until(
      'the second has been tried twice',
      async () => (await view(broker.url, body.id)).forwarding.failedAttempts >= 2,
    );
    const waiting = await view(broker.url, body.id);
    expect(waiting.state).toBe('committed');
    expect(waiting.messages.map(({ state }) => state)).toEqual([
      'forwarded',
      'pending',
      'forwarded',
    ]);
    expect(waiting.forwarding.lastFailure).toContain('nobody-listens');
    await until('both arrive', () => received(body.id).length >= 2);
    expect(received(body.id).map(({ properties }) => properties.messageId)).toEqual([
      `${body.id}-0`,
      `${body.id}-2`,
    ]);

    const late = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: 'nobody-listens' }]);
    try {
      await until(
        'somebody is bound',
        async () => (await view(broker.url, body.id)).state === 'forwarded',
      );
      // The confirm that is on record may overtake the delivery.
      await until('it arrives', () => late.received.length > 0);
      expect(late.messageIds()).toEqual([`${body.id}-1`]);
      expect(received(body.id)).toHaveLength(2);
    } finally {
      await late.close();
    }
  });

  test('a message that may be dropped is recorded as unrouted', async () => {
    const { body } = await prepare([
      { topic, routingKey: 'nobody-listens-ever', data: 1, ifUnrouted: 'drop' },
    ]);
    await verdict(body.id, 'commit');
    await until(
      'it is forwarded',
      async () => (await view(broker.url, body.id)).state === 'forwarded',
    );
    const dropped = await view(broker.url, body.id);
    expect(dropped.messages.map(({ state }) => state)).toEqual(['unrouted']);
    expect(dropped.history.map(({ event }) => event)).toEqual(['unrouted']);
  });

  test('a plain send is prepared and committed in one step, once', async () => {
    const id = (await prepare([{ topic, routingKey: 'registered', data: 'x' }])).body.id;
    await verdict(id, 'rollback');
    const sent = await call(`${broker.url}/v1/messages`, 'POST', {
      producerGroup: 'accounts',
      messages: [{ topic, routingKey: 'registered', data: 'sent' }],
    });
    expect(sent).toMatchObject({ status: 201, body: { state: 'committed' } });
    await until('it arrives', () => received(sent.body.id).length > 0);
    expect(received(sent.body.id)).toHaveLength(1);
  });

  test('a transaction of 32 messages forwards each once', async () => {
    const { body } = await prepare(
      Array.from({ length: 32 }, (_, n) => ({ topic, routingKey: 'registered', data: n })),
    );
    await verdict(body.id, 'commit');
    await until(
      'it is forwarded',
      async () => (await view(broker.url, body.id)).state === 'forwarded',
    );
    await until('all arrived', () => received(body.id).length >= 32);
    expect(new Set(received(body.id).map(({ properties }) => properties.messageId)).size).toBe(32);
    expect(received(body.id)).toHaveLength(32);
  });

  test('a business key settles when every expected group has consumed', async () => {
    const key = uniqueName('phone');
    const { body } = await prepare([{ topic, routingKey: 'registered', data: 1 }], {
      businessKeys: [key],
      expects: ['phone-index', 'email-index'],
    });
    await verdict(body.id, 'commit');
    await until(
      'it is forwarded',
      async () => (await view(broker.url, body.id)).state === 'forwarded',
    );
    const ask = (waitMs: number) => call(`${broker.url}/v1/business-keys/${key}?waitMs=${waitMs}`);
    expect((await ask(0)).body).toMatchObject({
      settled: false,
      transactions: [{ id: body.id, waitingFor: ['phone-index', 'email-index'], failed: [] }],
    });

    const waiting = ask(30_000);
    await sendReceipts(await replyTo(body.id), [
      { messageId: `${body.id}-0`, consumerGroup: 'phone-index', kind: 'consumed' },
      { messageId: `${body.id}-0`, consumerGroup: 'nobody-expects', kind: 'consumed' },
      { messageId: `${body.id}-0`, consumerGroup: 'phone-index', kind: 'consumed' },
    ]);
    await until(
      'one has consumed',
      async () => (await view(broker.url, body.id)).receipts.length === 1,
    );
    expect((await ask(0)).body.transactions[0].waitingFor).toEqual(['email-index']);
    await sendReceipts(await replyTo(body.id), [
      { messageId: `${body.id}-0`, consumerGroup: 'email-index', kind: 'consumed' },
    ]);
    expect((await waiting).body).toEqual({ businessKey: key, settled: true, transactions: [] });
  });

  test('N06: a message names its own groups, and the others are not waited for', async () => {
    const { body } = await prepare([
      { topic, routingKey: 'registered', data: 1, expects: ['phone-index'] },
      { topic, routingKey: 'registered', data: 2 },
    ]);
    await verdict(body.id, 'commit');
    await until('both arrive', () => received(body.id).length === 2);
    const byNumber = new Map(
      received(body.id).map(({ properties }) => [properties.messageId, properties]),
    );
    const second = byNumber.get(`${body.id}-1`);
    expect([second?.replyTo, second?.headers?.['escrow-expects']]).toEqual([undefined, undefined]);
    const first = byNumber.get(`${body.id}-0`);
    expect(first?.headers?.['escrow-expects']).toBe('phone-index');
    await sendReceipts(first?.replyTo, [
      { messageId: `${body.id}-0`, consumerGroup: 'phone-index', kind: 'consumed' },
    ]);
    const { body: shown } = await call(`${broker.url}/v1/transactions/${body.id}?waitMs=30000`);
    expect(shown).toMatchObject({
      settled: true,
      groups: [{ consumerGroup: 'phone-index', state: 'consumed' }],
    });
    expect(shown.messages.map(({ expects }: { expects?: string[] }) => expects)).toEqual([
      ['phone-index'],
      undefined,
    ]);
  });

  test('U05: what an operator closes answers as closed on its keys, for whoever waits as well', async () => {
    const key = uniqueName('order');
    const content = { businessKeys: [key], expects: ['stock'] };
    const { body } = await prepare([{ topic, routingKey: 'registered', data: 1 }], content);
    const resolve = (action: string, operator = 'ann') =>
      call(`${broker.url}/v1/transactions/${body.id}/resolve`, 'POST', {
        ...{ action, operator, reason: 'the stock is shut down' },
      });
    expect(await resolve('close')).toMatchObject({
      status: 409,
      body: { code: 'STATE_CONFLICT', detail: expect.stringContaining('is prepared; close is') },
    });
    await verdict(body.id, 'commit');
    await until(
      'it is forwarded',
      async () => (await view(broker.url, body.id)).state === 'forwarded',
    );
    const ask = (waitMs: number) => call(`${broker.url}/v1/business-keys/${key}?waitMs=${waitMs}`);
    const waiting = ask(30_000);
    const closed = {
      ...{ at: expect.any(Number), by: 'operator ann', reason: 'the stock is shut down' },
    };
    const first = await resolve('close');
    expect(first).toMatchObject({ status: 200, body: { state: 'forwarded', closed } });
    expect((await resolve('close', 'bob')).body).toEqual(first.body);
    const answer = {
      businessKey: key,
      settled: false,
      transactions: [{ id: body.id, waitingFor: [], failed: ['stock'], closed }],
    };
    expect((await waiting).body).toMatchObject(answer);
    expect((await ask(30_000)).body).toMatchObject(answer);
    await sendReceipts(await replyTo(body.id), [
      { messageId: `${body.id}-0`, consumerGroup: 'stock', kind: 'consumed' },
    ]);
    await until(
      'it is recorded',
      async () => (await view(broker.url, body.id)).receipts.length === 1,
    );
    expect(await view(broker.url, body.id)).toMatchObject({ settled: false, closed });
    await until('it is alerted', async () => {
      const { body: metrics } = await call(`${broker.url}/metrics`);
      return /^escrow_alerts_total\{kind="lateReceipts"\} 1$/m.test(String(metrics));
    });
  });

  test('a wait on a business key ends at once when an expected group gave up for good', async () => {
    const key = uniqueName('email');
    const { body } = await prepare([{ topic, routingKey: 'registered', data: 1 }], {
      businessKeys: [key],
      expects: ['email-index'],
    });
    await verdict(body.id, 'commit');
    await sendReceipts(await replyTo(body.id), [
      {
        messageId: `${body.id}-0`,
        consumerGroup: 'email-index',
        kind: 'failed',
        attempts: 1,
        cause: 'taken',
      },
    ]);
    const answer = await call(`${broker.url}/v1/business-keys/${key}?waitMs=30000`);
    expect(answer.body).toMatchObject({
      settled: false,
      transactions: [{ id: body.id, waitingFor: [], failed: ['email-index'] }],
    });
    expect((await view(broker.url, body.id)).receipts).toMatchObject([
      { consumerGroup: 'email-index', kind: 'failed', cause: 'taken', attempts: 1 },
    ]);
  });
});

/** To where the message says, as any AMQP client would. */
async function sendReceipts(replyTo: unknown, receipts: object[]): Promise<void> {
  const { default: amqplib } = await import('amqplib');
  const connection = await amqplib.connect(rabbitmqUrl());
  const channel = await connection.createConfirmChannel();
  channel.sendToQueue(String(replyTo), Buffer.from(JSON.stringify({ receipts })), {
    persistent: true,
  });
  await channel.waitForConfirms();
  await connection.close();
}

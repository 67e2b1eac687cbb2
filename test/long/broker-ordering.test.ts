import { HEADERS, orderingSlotOf } from '@escrowmq/protocol';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import amqplib, { type ChannelModel } from 'amqplib';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

describe.each(['sqlite', 'mysql'] as const)('order per key on %s', (kind) => {
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let queue: BoundQueue;
  let connection: ChannelModel;
  /** One for each test; a queue is bound to what has the routing key "bound". */
  let topic: string;

  beforeAll(async () => {
    store = await freshStore(kind);
    broker = await startBrokerProcess({
      store: store.url,
      rabbitmq: rabbitmqUrl(),
      // The first two are a second apart: a third leaves a busy machine time to look before it parks.
      environment: { ESCROW_UNROUTED_ATTEMPTS_MAX: '3' },
    });
    await registerGroup(broker.url, 'accounts');
    connection = await amqplib.connect(rabbitmqUrl());
  });
  beforeEach(async () => {
    await queue?.close();
    topic = uniqueName('user');
    queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: 'bound' }]);
  });
  afterAll(async () => {
    await queue.close();
    await connection.close();
    await broker.stop();
    await store.remove();
  });

  const message = (orderingKey: string | undefined, more: object = {}) => ({
    topic,
    routingKey: 'bound',
    data: 1,
    ...(orderingKey === undefined ? {} : { orderingKey }),
    ...more,
  });
  const post = async (path: string, body?: object) => {
    const answer = await call(`${broker.url}${path}`, 'POST', body);
    expect(answer.body).toMatchObject({ id: expect.any(String) });
    return String(answer.body.id);
  };
  const send = (...messages: object[]) =>
    post('/v1/messages', { producerGroup: 'accounts', messages });
  const prepare = (...messages: object[]) =>
    post('/v1/transactions', { producerGroup: 'accounts', messages });
  const commit = (id: string) => post(`/v1/transactions/${id}/commit`);
  const arrivals = (count: number) =>
    until(`${count} messages arrive`, () => queue.received.length >= count);
  const inState = (id: string, state: string) =>
    until(`${id} is ${state}`, async () => (await view(broker.url, id)).state === state);
  const shown = async (id: string) => (await view(broker.url, id)).messages[0]?.ordering;

  test('messages leave in the order of their commits, with their numbers', async () => {
    const ids = [];
    for (let n = 0; n < 5; n += 1) ids.push(await prepare(message('a'), message('a')));
    const inOrder = [...ids].reverse();
    for (const id of inOrder) await commit(id);
    inOrder.push(await send(message('a'), message(undefined)));
    await arrivals(12);
    const ofKey = queue.received.filter(
      ({ properties }) => properties.headers?.[HEADERS.orderingKey] === 'a',
    );
    expect(ofKey.map(({ properties }) => properties.messageId)).toEqual(
      inOrder.flatMap((id) => [`${id}-0`, `${id}-1`]).slice(0, 11),
    );
    expect(ofKey.map(({ properties }) => properties.headers?.[HEADERS.sequence])).toEqual(
      Array.from({ length: 11 }, (_, index) => index + 1),
    );
    const slots = ofKey.map(({ properties }) => properties.headers?.[HEADERS.orderingSlot]);
    expect(new Set(slots)).toEqual(new Set([orderingSlotOf(topic, 'a')]));
    const [plain] = queue.received.filter(
      ({ properties }) => !ofKey.some((one) => one.properties === properties),
    );
    expect(Object.keys(plain?.properties.headers ?? {})).not.toContain(HEADERS.sequence);
    for (const id of inOrder) await inState(id, 'forwarded');
  });

  test('what nobody is bound for is tried again before anything behind it, and parked holds its key (F60)', async () => {
    const first = await send(message('a', { routingKey: 'nowhere' }));
    const second = await send(message('a'));
    const third = await send(message('a'));
    const other = await send(message('b'));
    await arrivals(1);
    expect(queue.messageIds()).toEqual([`${other}-0`]);
    await until(
      'it was tried',
      async () => (await view(broker.url, first)).forwarding.failedAttempts > 0,
    );
    expect(await shown(second)).toMatchObject({
      sequence: 2,
      waitsFor: { messageId: `${first}-0`, state: 'committed' },
    });
    await inState(first, 'parked');
    for (const [id, sequence] of [
      [second, 2],
      [third, 3],
    ] as const) {
      expect(await shown(id)).toEqual({
        key: 'a',
        sequence,
        waitsFor: { transactionId: first, messageId: `${first}-0`, sequence: 1, state: 'parked' },
      });
    }
    await until('somebody is alerted', () =>
      broker.log.some(({ transactionId }) => transactionId === first),
    );

    const channel = await connection.createChannel();
    const { queue: late } = await channel.assertQueue('', { exclusive: true });
    await channel.bindQueue(late, topic, 'nowhere');
    expect(queue.messageIds()).toEqual([`${other}-0`]);
    const action = { action: 'resend', operator: 'ann', reason: 'bound now' };
    await post(`/v1/transactions/${first}/resolve`, action);
    await arrivals(3);
    expect(queue.messageIds()).toEqual([other, second, third].map((id) => `${id}-0`));
    await inState(first, 'forwarded');
    await inState(third, 'forwarded');
    expect(await shown(third)).toEqual({ key: 'a' });
  });

  test('a delayed message holds its key until its time, or until it is cancelled', async () => {
    const held = await send(message('c', { delayMs: 3_600_000 }));
    const behind = await send(message('c'));
    // Long enough for a busy machine to send the rest and to look.
    const first = await send(message('a', { delayMs: 2_500 }));
    const second = await send(message('a'));
    const other = await send(message('b'));
    await arrivals(1);
    expect(queue.messageIds()).toEqual([`${other}-0`]);
    expect(await shown(second)).toMatchObject({ waitsFor: { messageId: `${first}-0` } });
    await arrivals(3);
    expect(queue.messageIds()).toEqual([other, first, second].map((id) => `${id}-0`));
    await call(`${broker.url}/v1/transactions/${held}/cancel`, 'POST', { reason: 'not needed' });
    await arrivals(4);
    expect(queue.messageIds().at(-1)).toBe(`${behind}-0`);
  });
});

import {
  type Consumer,
  type ConsumerEvent,
  createConsumer,
  type EphemeralMessage,
  type EphemeralOptions,
  type GapReason,
} from '@escrowmq/consumer';
import { startTcpProxy } from '@escrowmq/local-servers';
import { HEADERS } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type ChannelModel, type ConfirmChannel, connect } from 'amqplib';
import { deleteGroupQueues } from '../support/group-queues.js';
import { amqpProperties, bodyOf, publish } from '../support/publish.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

let connection: ChannelModel;
let channel: ConfirmChannel;
let topic: string;
let opened: { close(): Promise<void> }[];

beforeAll(async () => {
  connection = await connect(rabbitmqUrl());
  channel = await connection.createConfirmChannel();
});
afterAll(() => connection.close());
beforeEach(() => {
  topic = uniqueName('topic');
  opened = [];
});
afterEach(async () => {
  for (const each of opened.reverse()) await each.close();
});

function consumerOf(rabbitmq = rabbitmqUrl()) {
  const events: ConsumerEvent[] = [];
  const consumer = createConsumer({ rabbitmq, logger: (event) => events.push(event) });
  opened.push(consumer);
  const named = <Name extends ConsumerEvent['event']>(name: Name) =>
    events.filter((event): event is Extract<ConsumerEvent, { event: Name }> => {
      return event.event === name;
    });
  return { consumer, named };
}

const send = (data: unknown, routingKey = 'changed') =>
  publish(channel, { topic, routingKey, data });

describe('groups of one topic', () => {
  const groups = [
    { group: uniqueName('of-orders'), routingKeys: ['order.*'] },
    { group: uniqueName('of-creations'), routingKeys: ['#.created'] },
    { group: uniqueName('of-all'), routingKeys: ['#'] },
  ];
  const late = { group: uniqueName('late'), routingKeys: ['order.#'] };
  const retryDelaysMs = [1];

  test('each get what their patterns match, and a later one what comes from then on', async () => {
    const { consumer } = consumerOf();
    const got = new Map<string, string[]>();
    const subscribe = async ({ group, routingKeys }: typeof late) => {
      const keys: string[] = [];
      got.set(group, keys);
      await consumer.subscribe({ topic, group, routingKeys, retryDelaysMs }, (message) => {
        keys.push(message.routingKey);
      });
    };
    try {
      for (const group of groups) await subscribe(group);
      for (const key of ['order.created', 'invoice.created', 'order.item.shipped']) {
        await send(1, key);
      }
      await subscribe(late);
      await send(1, 'order.cancelled');
      const expected = [
        ['order.created', 'order.cancelled'],
        ['order.created', 'invoice.created'],
        ['order.created', 'invoice.created', 'order.item.shipped', 'order.cancelled'],
        ['order.cancelled'],
      ];
      const keysOf = () => [...groups, late].map(({ group }) => (got.get(group) ?? []).toSorted());
      await until('everybody has theirs', () => {
        return keysOf().every((keys, index) => keys.length >= (expected[index] ?? []).length);
      });
      expect(keysOf()).toEqual(expected.map((keys) => keys.toSorted()));
    } finally {
      await consumer.close();
      const all = [...groups, late].map(({ group }) => ({ group, retryDelaysMs }));
      await deleteGroupQueues(rabbitmqUrl(), topic, all);
    }
  });
});

describe('an ephemeral subscription', () => {
  /** What happened, in order: the data of messages, and the reasons of gaps. */
  let seen: unknown[];
  let onGap: (reason: GapReason) => unknown;
  let handle: (message: EphemeralMessage) => unknown;

  beforeEach(() => {
    seen = [];
    onGap = (reason) => seen.push(`gap: ${reason}`);
    handle = ({ data }) => seen.push(data);
  });
  afterEach(() => channel.deleteExchange(topic));

  const subscribe = (consumer: Consumer, options: Partial<EphemeralOptions> = {}) =>
    consumer.subscribeEphemeral(
      { topic, onGap: (reason) => onGap(reason), ...options },
      (message) => handle(message),
    );
  const sawLast = (data: unknown) =>
    until(`${JSON.stringify(data)} was handled`, () => seen.at(-1) === data);

  /** Whether RabbitMQ has a queue for it. */
  async function isRouted(): Promise<boolean> {
    let returned = false;
    const look = () => {
      returned = true;
    };
    channel.once('return', look);
    await send('routed?');
    channel.off('return', look);
    return !returned;
  }

  test('gives every instance every message, one after the other, in their order', async () => {
    const numbers = Array.from({ length: 50 }, (_, index) => index);
    const got: number[][] = [[], []];
    let running = 0;
    let runningMax = 0;
    for (const own of got) {
      const { consumer } = consumerOf();
      await consumer.subscribeEphemeral<number>(
        { topic, routingKeys: ['changed'], onGap },
        async ({ data }) => {
          // Those of the other instance run beside these.
          if (own === got[0]) runningMax = Math.max(runningMax, ++running);
          await new Promise(setImmediate);
          own.push(data);
          if (own === got[0]) running -= 1;
        },
      );
    }
    await send('another key', 'deleted');
    for (const number of numbers) await send(number);
    await until('both have all', () => got.every((own) => own.length >= numbers.length));
    expect(got).toEqual([numbers, numbers]);
    expect(runningMax).toBe(1);
    expect(seen).toEqual([]);
  });

  test('tells what its handler failed at, and goes on with the next', async () => {
    const { consumer, named } = consumerOf();
    await subscribe(consumer, { handlerTimeoutMs: 50 });
    handle = ({ data }) => {
      if (data === 'throws') throw new Error('no such price');
      return data === 'hangs' ? new Promise(() => {}) : seen.push(data);
    };
    const thrown = await send('throws');
    const hung = await send('hangs');
    const properties = amqpProperties({ topic, data: 'sent' });
    const altered = bodyOf({ topic, data: 'altered' });
    channel.publish(topic, 'changed', altered, properties);
    await send('next');
    await sawLast('next');
    expect(seen).toEqual(['next']);
    expect(named('messageDropped')).toMatchObject([
      { topic, messageId: thrown, cause: expect.stringContaining('no such price') },
      { topic, messageId: hung, cause: expect.stringContaining('within 50 ms') },
      { topic, messageId: properties.messageId, cause: expect.stringContaining('CRC-32') },
    ]);
  });

  test('tells of the gap of a lost connection before it handles what came after', async () => {
    const proxy = await startTcpProxy(rabbitmqUrl());
    const { consumer } = consumerOf(proxy.url);
    await subscribe(consumer);
    await send('before');
    await sawLast('before');
    let release = () => {};
    onGap = async (reason) => {
      seen.push(`gap: ${reason}`);
      await new Promise<void>((resolve) => {
        release = resolve;
      });
      seen.push('told');
    };
    proxy.cut();
    await until('it is told of the gap', () => seen.length === 2);
    // The new queue has been bound by now, so what comes now is not missed.
    await send('after');
    release();
    await sawLast('after');
    expect(seen).toEqual(['before', 'gap: reconnected', 'told', 'after']);
    await consumer.close();
    await proxy.close();
  });

  test('tells of a gap when more waited than its queue may hold, and keeps the latest', async () => {
    const { consumer } = consumerOf();
    await subscribe(consumer, { queueMessagesMax: 10 });
    let running = 0;
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    handle = async ({ data }) => {
      running += 1;
      await released;
      seen.push(data);
      running -= 1;
    };
    onGap = (reason) => seen.push(`gap: ${reason}, beside ${running} handlers`);
    for (let number = 0; number < 400; number += 1) await send(number);
    expect(seen).toEqual([]);
    release();
    await sawLast(399);
    const [first, second] = seen;
    // Ahead of all the others that had been fetched.
    expect([first, second]).toEqual([0, 'gap: overflow, beside 0 handlers']);
    const handled = seen.filter((each) => typeof each === 'number');
    expect(handled.length).toBeLessThan(400);
    expect(handled).toEqual(handled.toSorted((a, b) => Number(a) - Number(b)));
    await send(400);
    await sawLast(400);
  });

  test('does not go on until it could tell of the gap', async () => {
    const { consumer, named } = consumerOf();
    await subscribe(consumer, { queueMessagesMax: 10 });
    let release = () => {};
    const released = new Promise<void>((resolve) => {
      release = resolve;
    });
    handle = async ({ data }) => {
      await released;
      seen.push(data);
    };
    let failures = 0;
    onGap = (reason) => {
      failures += 1;
      if (failures <= 2) throw new Error('the cache is locked');
      seen.push(`gap: ${reason}`);
    };
    for (let number = 0; number < 300; number += 1) await send(number);
    release();
    await until('it could tell', () => seen.includes('gap: reconnected'));
    await send('after');
    await sawLast('after');
    // The first may have been handled before; nothing else was.
    expect(seen.filter((each) => each !== 0)).toEqual(['gap: reconnected', 'after']);
    expect(named('gapFailed')).toMatchObject([
      { reason: 'overflow', cause: 'Error: the cache is locked' },
    ]);
    expect(named('consumingLost').map(({ cause }) => cause)).toContain(
      'Error: the cache is locked',
    );
  });

  test('is a queue like any other for who publishes, and leaves nothing behind', async () => {
    await channel.assertExchange(topic, 'topic', { durable: true });
    expect(await isRouted()).toBe(false);
    const { consumer } = consumerOf();
    const subscription = await subscribe(consumer);
    expect(await isRouted()).toBe(true);
    await subscription.close();
    expect(await isRouted()).toBe(false);
  });

  test('gives its queue up for a pause, and resumes with a gap', async () => {
    const { consumer } = consumerOf();
    const subscription = await subscribe(consumer);
    await subscription.pause();
    expect(await isRouted()).toBe(false);
    await subscription.resume();
    await until('it has resumed', () => seen.includes('gap: reconnected'));
    await send('after');
    await sawLast('after');
    expect(seen).toEqual(['gap: reconnected', 'after']);
  });

  test('sends no receipt, however much it is waited for', async () => {
    const { consumer } = consumerOf();
    await subscribe(consumer);
    const message = { topic, data: 'expected', expects: ['(ephemeral)', ''] };
    const queue = await channel.assertQueue('', { exclusive: true });
    const properties = { ...amqpProperties(message), replyTo: queue.queue };
    expect(properties.headers?.[HEADERS.expects]).toBe('(ephemeral),');
    channel.publish(topic, 'changed', bodyOf(message), properties);
    await sawLast('expected');
    await consumer.close();
    expect((await channel.checkQueue(queue.queue)).messageCount).toBe(0);
  });

  test.each([
    ['no onGap', { onGap: undefined }, /onGap must be a function/],
    ['retries', { retryDelaysMs: [1] }, /does not know retryDelaysMs/],
    ['a queue for no message', { queueMessagesMax: 0 }, /queueMessagesMax must be/],
    ['a queue too small for a large message', { queueBytesMax: 1_000 }, /queueBytesMax must be/],
  ])('is refused with %s', async (_, options, said) => {
    const { consumer } = consumerOf();
    await channel.assertExchange(topic, 'topic', { durable: true });
    const refused = subscribe(consumer, options as Partial<EphemeralOptions>);
    await expect(refused).rejects.toThrow(said);
  });
});

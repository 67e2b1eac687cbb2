import { startTcpProxy } from '@escrowmq/local-servers';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { PublishOutcome } from '../../broker/src/domain/ports.js';
import {
  openRabbit,
  type Rabbit,
  type RabbitOptions,
} from '../../broker/src/rabbit/open-rabbit.js';
import { onChannel, outgoing, recordingObserver } from '../support/rabbit.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

let topic: string;
let queue: string;
let rabbit: Rabbit | undefined;
let observer: ReturnType<typeof recordingObserver>;

beforeEach(async () => {
  topic = uniqueName('topic');
  queue = uniqueName('queue');
  observer = recordingObserver();
  await declareTopicWithQueue({});
});

afterEach(async () => {
  await rabbit?.close();
  rabbit = undefined;
  await onChannel(rabbitmqUrl(), async (channel) => {
    await channel.deleteExchange(topic);
    await channel.deleteQueue(queue);
  });
});

/** A topic with one durable queue for the routing key `registered`. */
function declareTopicWithQueue(queueArguments: Record<string, unknown>): Promise<void> {
  return onChannel(rabbitmqUrl(), async (channel) => {
    await channel.deleteQueue(queue);
    await channel.assertExchange(topic, 'topic', { durable: true });
    await channel.assertQueue(queue, { durable: true, arguments: queueArguments });
    await channel.bindQueue(queue, topic, 'registered');
  });
}

async function open(options: Partial<RabbitOptions> = {}): Promise<Rabbit> {
  rabbit = openRabbit({ url: rabbitmqUrl(), observer, ...options });
  await until('there is room', () => rabbit!.room > 0);
  return rabbit;
}

const kinds = (outcomes: PublishOutcome[]) => outcomes.map(({ kind }) => kind);

test('a confirmed message is in the queue with all its properties', async () => {
  const { publish } = await open();
  expect(
    await publish(outgoing(topic, 'm-1', { headers: { tenant: 'a', count: 3, ok: true } })),
  ).toEqual({
    kind: 'confirmed',
  });
  const found = await onChannel(rabbitmqUrl(), (channel) => channel.get(queue, { noAck: true }));
  if (found === false) throw new Error('the queue is empty');
  expect(found.content.toString()).toBe('{"userId":7}');
  expect(found.fields).toMatchObject({ exchange: topic, routingKey: 'registered' });
  expect(found.properties).toMatchObject({
    messageId: 'm-1',
    timestamp: 1_790_000_000,
    type: 'registered',
    appId: 'accounts',
    contentType: 'application/json',
    deliveryMode: 2,
    headers: { tenant: 'a', count: 3, ok: true },
  });
});

test('of three messages the one without a queue is returned and the others are confirmed (F53)', async () => {
  const { publish } = await open();
  const outcomes = await Promise.all([
    publish(outgoing(topic, 'm-1')),
    publish(outgoing(topic, 'm-2', { routingKey: 'nobody-is-bound' })),
    publish(outgoing(topic, 'm-3')),
  ]);
  expect(kinds(outcomes)).toEqual(['confirmed', 'returned', 'confirmed']);
  expect(outcomes[1]).toMatchObject({ detail: expect.stringContaining('312 NO_ROUTE') });
});

test('a topic that nobody declared is declared, once for all that wait for it', async () => {
  const { publish } = await open();
  await onChannel(rabbitmqUrl(), (channel) => channel.deleteExchange(topic));
  const outcomes = await Promise.all(
    Array.from({ length: 20 }, (_, n) => publish(outgoing(topic, `m-${n}`))),
  );
  expect(new Set(kinds(outcomes))).toEqual(new Set(['returned']));
  // Declaring it again with other properties would fail: it is durable and of type topic.
  await onChannel(rabbitmqUrl(), (channel) =>
    channel.assertExchange(topic, 'topic', { durable: true }),
  );
});

test('what a full queue rejects is nacked (F55)', async () => {
  await declareTopicWithQueue({ 'x-max-length': 1, 'x-overflow': 'reject-publish' });
  const { publish } = await open();
  expect(await publish(outgoing(topic, 'm-1'))).toEqual({ kind: 'confirmed' });
  // A classic queue counts what it holds a moment later than it confirms.
  let n = 2;
  await until('the queue is full', async () => {
    const outcome = await publish(outgoing(topic, `m-${n++}`));
    return outcome.kind === 'nacked';
  });
});

test('a message id in flight is not published a second time', async () => {
  const { publish } = await open();
  const outcomes = await Promise.all([
    publish(outgoing(topic, 'm-1')),
    publish(outgoing(topic, 'm-1')),
  ]);
  expect(kinds(outcomes)).toEqual(['confirmed', 'unconfirmed']);
  expect(outcomes[1]).toMatchObject({ detail: expect.stringContaining('in flight already') });
  const { messageCount } = await onChannel(rabbitmqUrl(), (channel) => channel.checkQueue(queue));
  expect(messageCount).toBe(1);
});

test('what does not fit into AMQP is refused and harms nothing else (F49)', async () => {
  const { publish } = await open();
  const outcomes = await Promise.all([
    publish(outgoing(topic, 'm-1')),
    publish(outgoing(topic, 'm-2', { headers: { large: 'x'.repeat(200_000) } })),
    publish(outgoing(topic, 'm-3', { contentType: 'x'.repeat(300) })),
    publish(outgoing('t'.repeat(300), 'm-4')),
    publish(outgoing(topic, 'm-5')),
  ]);
  expect(kinds(outcomes)).toEqual(['confirmed', 'refused', 'refused', 'refused', 'confirmed']);
  expect(observer.told.filter((line) => !line.startsWith('connected'))).toEqual([]);
});

test('a topic that exists as another type is refused while other topics go on (F54)', async () => {
  const taken = uniqueName('taken');
  await onChannel(rabbitmqUrl(), (channel) => channel.assertExchange(taken, 'direct'));
  const { publish } = await open();
  const outcomes = await Promise.all([
    publish(outgoing(topic, 'm-1')),
    publish(outgoing(taken, 'm-2')),
    publish(outgoing(topic, 'm-3')),
  ]);
  await onChannel(rabbitmqUrl(), (channel) => channel.deleteExchange(taken));
  expect(kinds(outcomes)).toEqual(['confirmed', 'refused', 'confirmed']);
  expect(outcomes[1]).toMatchObject({
    detail: expect.stringMatching(/must be a durable topic exchange.*406/),
  });
  // The answer is kept for a while: RabbitMQ is not asked again, though it would agree by now.
  expect((await publish(outgoing(taken, 'm-4'))).kind).toBe('refused');
});

test.each([
  ['an alternate exchange', 'alternate-exchange'],
  ['auto-delete', 'auto_delete'],
])(
  'U23: a durable topic exchange with %s is used as it is, and that is told once',
  async (_, what) => {
    const alternate = `${topic}-alternate`;
    await onChannel(rabbitmqUrl(), async (channel) => {
      await channel.deleteExchange(topic);
      await channel.assertExchange(alternate, 'fanout', { autoDelete: true });
      await channel.bindQueue(queue, alternate, '');
      await channel.assertExchange(topic, 'topic', {
        durable: true,
        ...(what === 'auto_delete' ? { autoDelete: true } : { alternateExchange: alternate }),
      });
      await channel.bindQueue(queue, topic, 'registered');
    });
    const { publish } = await open();
    const outcomes = await Promise.all([
      publish(outgoing(topic, 'm-1')),
      publish(outgoing(topic, 'm-2', { routingKey: 'nobody-is-bound' })),
    ]);
    // What the alternate exchange has taken RabbitMQ does not return.
    expect(kinds(outcomes)).toEqual([
      'confirmed',
      what === 'auto_delete' ? 'returned' : 'confirmed',
    ]);
    expect(observer.told.filter((line) => line.includes('is used as it is'))).toHaveLength(1);
  },
);

test.each([
  ['not durable', { durable: false }],
  ['internal', { durable: true, internal: true }],
])(
  'U23: a topic exchange that is %s is refused, and the reason names it',
  async (what, options) => {
    await onChannel(rabbitmqUrl(), async (channel) => {
      await channel.deleteExchange(topic);
      await channel.assertExchange(topic, 'topic', options);
    });
    const { publish } = await open();
    expect(await publish(outgoing(topic, 'm-1'))).toMatchObject({
      kind: 'refused',
      detail: expect.stringContaining(`inequivalent arg '${what.split(' ').at(-1)}'`),
    });
  },
);

test('a topic deleted in the middle of a burst comes back by itself (F54)', async () => {
  const { publish } = await open();
  const outcomes: PublishOutcome[] = [];
  let stop = false;
  async function burst(name: string) {
    for (let n = 0; !stop; n++) {
      outcomes.push(await publish(outgoing(topic, `${name}-${n}`)));
      // While the channel is being opened outcomes are immediate, and would keep I/O waiting.
      await new Promise(setImmediate);
    }
  }
  const bursts = Array.from({ length: 50 }, (_, n) => burst(`burst${n}`));
  try {
    await until('the burst is on its way', () => outcomes.length > 500);
    await onChannel(rabbitmqUrl(), (channel) => channel.deleteExchange(topic));
    await until('the topic is declared again', () =>
      outcomes.some(({ kind }) => kind === 'returned'),
    );
    await declareTopicWithQueue({});
    const before = outcomes.length;
    await until('messages are confirmed again', () =>
      outcomes.slice(before).some(({ kind }) => kind === 'confirmed'),
    );
  } finally {
    stop = true;
    await Promise.all(bursts);
  }
  expect(new Set(kinds(outcomes))).toEqual(
    new Set(['confirmed', 'interrupted', 'unconfirmed', 'returned']),
  );
  expect(observer.told.some((line) => line.includes('404'))).toBe(true);
});

test('the window is bounded in messages', async () => {
  const { publish } = await open({ windowMax: 3 });
  const publishes = ['m-1', 'm-2', 'm-3', 'm-4'].map((id) => publish(outgoing(topic, id)));
  expect(rabbit!.room).toBe(0);
  expect(kinds(await Promise.all(publishes))).toEqual([
    'confirmed',
    'confirmed',
    'confirmed',
    'unconfirmed',
  ]);
  expect(rabbit!.room).toBe(3);
});

test('the window is bounded in bytes', async () => {
  const { publish } = await open({ windowBytesMax: 1000 });
  const body = Buffer.alloc(600, 'x');
  const publishes = ['m-1', 'm-2', 'm-3'].map((id) => publish(outgoing(topic, id, { body })));
  expect(rabbit!.room).toBe(0);
  expect(kinds(await Promise.all(publishes))).toEqual(['confirmed', 'confirmed', 'unconfirmed']);
  expect(rabbit!.room).toBeGreaterThan(0);
});

test('a publish that outlives its limit is unconfirmed, the younger ones on its channel are not (F61)', async () => {
  // Half of it is what a busy machine has to heal the wire before the younger one is late too.
  const publishLimitMs = 4_000;
  const proxy = await startTcpProxy(rabbitmqUrl());
  try {
    const { publish } = await open({ url: proxy.url, publishLimitMs });
    await publish(outgoing(topic, 'declares-the-topic'));
    proxy.impair({ kind: 'hold' }, 'toClient');
    const startedAt = performance.now();
    const older = publish(outgoing(topic, 'older', { routingKey: 'nobody-is-bound' }));
    await until('half the limit is over', () => performance.now() - startedAt > publishLimitMs / 2);
    const younger = publish(outgoing(topic, 'younger'));
    expect(await older).toMatchObject({
      kind: 'unconfirmed',
      detail: expect.stringContaining('within 4000 ms'),
    });
    expect(rabbit!.room).toBe(0);
    proxy.heal();
    expect(await younger).toEqual({ kind: 'confirmed' });
    await until('a new channel is open', () => rabbit!.room > 0);
    // The return of the first publish has come by now, and is not taken for one of the second.
    expect(await publish(outgoing(topic, 'older'))).toEqual({ kind: 'confirmed' });
  } finally {
    await proxy.close();
  }
});

test('a lost connection leaves everything in flight unconfirmed and is made again (F52)', async () => {
  const proxy = await startTcpProxy(rabbitmqUrl());
  const { publish } = await open({ url: proxy.url });
  let readyCalls = 0;
  rabbit!.onReady(() => readyCalls++);
  await publish(outgoing(topic, 'declares-the-topic'));
  proxy.impair({ kind: 'hold' }, 'toClient');
  const publishes = ['m-1', 'm-2'].map((id) => publish(outgoing(topic, id)));
  const undeclared = publish(outgoing(uniqueName('undeclared'), 'm-3'));
  proxy.cut();
  expect(kinds(await Promise.all([...publishes, undeclared]))).toEqual([
    'unconfirmed',
    'unconfirmed',
    'unconfirmed',
  ]);
  expect(rabbit!.status).toBe('disconnected');
  expect(rabbit!.room).toBe(0);
  expect(await publish(outgoing(topic, 'm-4'))).toEqual({
    kind: 'unconfirmed',
    detail: 'RabbitMQ is disconnected',
  });
  proxy.heal();
  await until('publishing is possible again', () => readyCalls === 1);
  expect(await publish(outgoing(topic, 'm-1'))).toEqual({ kind: 'confirmed' });
  await proxy.close();
});

test('closing waits for confirms, then takes nothing more', async () => {
  const { publish, close } = await open();
  const publishes = Array.from({ length: 100 }, (_, n) => publish(outgoing(topic, `m-${n}`)));
  await close();
  expect(new Set(kinds(await Promise.all(publishes)))).toEqual(new Set(['confirmed']));
  expect(rabbit!.room).toBe(0);
  expect(rabbit!.status).toBe('disconnected');
  expect((await publish(outgoing(topic, 'late'))).kind).toBe('unconfirmed');
});

test('closing is bounded when RabbitMQ is silent', async () => {
  const proxy = await startTcpProxy(rabbitmqUrl());
  const { publish, close } = await open({ url: proxy.url, closeLimitMs: 300 });
  await publish(outgoing(topic, 'declares-the-topic'));
  proxy.impair({ kind: 'hold' }, 'toClient');
  const unanswered = publish(outgoing(topic, 'm-1'));
  const startedAt = performance.now();
  await close();
  // Long before the publish would be given up by itself.
  expect(performance.now() - startedAt).toBeLessThan(5_000);
  expect((await unanswered).kind).toBe('unconfirmed');
  await proxy.close();
});

test.each([
  [
    'a virtual host that is missing',
    (url: URL) => (url.pathname = '/nowhere'),
    'has no virtual host "nowhere"',
  ],
  ['a wrong password', (url: URL) => (url.password = 'wr%C3%B6ng'), 'refused the login of user'],
  [
    'TLS where none is spoken',
    (url: URL) => url.href.replace('amqp:', 'amqps:'),
    'nobody speaks TLS',
  ],
])('U15: %s is named at once, and trying goes on', async (_, change, said) => {
  const url = new URL(rabbitmqUrl());
  const changed = change(url);
  const wrong = changed.startsWith('amqps:') ? changed : url.href;
  rabbit = openRabbit({ url: wrong, observer });
  await until('it has been tried twice', () => observer.told.length >= 2);
  expect(observer.told[0]).toContain(said);
  expect(observer.told.join()).not.toMatch(/wr(ö|%C3%B6)ng/);
  expect(rabbit.problems.connection).toContain(said);
  expect(rabbit.status).toBe('disconnected');
});

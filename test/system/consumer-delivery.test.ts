import { setTimeout as pause } from 'node:timers/promises';
import { type Message, PermanentError } from '@escrowmq/consumer';
import { HEADERS, queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { amqpProperties, publish } from '../support/publish.js';
import { deferred } from '../support/ready.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const DELAYS_MS = [50, 150, 400];
let bench: ConsumerBench;
let names: { topic: string; group: string };

beforeEach(async () => {
  bench = await openBench(rabbitmqUrl(), DELAYS_MS);
  names = { topic: bench.topic, group: bench.group };
});

afterEach(() => bench.close());

/** Unacknowledged ones count as well, so nothing is left when it says so. */
async function nothingLeft(): Promise<void> {
  const queue = queueName(bench.topic, bench.group);
  await bench.consumer.close();
  expect(await bench.channel.get(queue, { noAck: true })).toBe(false);
}

test('a handler gets the message as its producer sent it, and its success acknowledges it', async () => {
  const received: Message<{ userId: number }>[] = [];
  await bench.consumer.subscribe<{ userId: number }>(
    { ...names, routingKeys: ['registered'] },
    (message) => received.push(message),
  );
  const headers = { tenant: 'a', traceparent: '00-1-2-01' };
  const data = { userId: 7 };
  const id = await publish(bench.channel, { ...names, routingKey: 'registered', data, headers });
  await until('the handler was called', () => received.length === 1);
  expect(received[0]).toMatchObject({
    id,
    transactionId: id.slice(0, 36),
    number: 0,
    ...names,
    routingKey: 'registered',
    data,
    body: Buffer.from('{"userId":7}'),
    contentType: 'application/json',
    headers,
    producerGroup: 'test-producers',
    attempts: 0,
    redelivered: false,
  });
  await nothingLeft();
});

test('bytes of another content type reach the handler untouched', async () => {
  const received: Message[] = [];
  await bench.consumer.subscribe(names, (message) => received.push(message));
  const body = Buffer.from([0, 255, 1, 254]);
  await publish(bench.channel, { ...names, body, contentType: 'application/octet-stream' });
  await until('the handler was called', () => received.length === 1);
  expect(received[0]!.body).toEqual(body);
  expect(received[0]!.data).toBeUndefined();
});

test('only the routing keys of the subscription are consumed', async () => {
  const received: string[] = [];
  await bench.consumer.subscribe({ ...names, routingKeys: ['a.*'] }, ({ routingKey }) =>
    received.push(routingKey),
  );
  for (const routingKey of ['a.1', 'b.1', 'a.2'])
    await publish(bench.channel, { ...names, routingKey });
  await until('both arrived', () => received.length >= 2);
  expect(received).toEqual(['a.1', 'a.2']);
});

test('a message whose handler fails three times comes again after growing delays', async () => {
  const attempts: number[] = [];
  const times: number[] = [];
  await bench.consumer.subscribe(
    { ...names, retryDelaysMs: DELAYS_MS, retryJitter: 0 },
    (message) => {
      attempts.push(message.attempts);
      times.push(performance.now());
      if (message.attempts < 3) throw new Error(`not yet ${message.id}`);
    },
  );
  const id = await publish(bench.channel, { ...names, routingKey: 'k', data: 1 });
  await until('the fourth attempt was made', () => attempts.length === 4);
  expect(attempts).toEqual([0, 1, 2, 3]);
  DELAYS_MS.forEach((delayMs, index) => {
    // RabbitMQ counts whole milliseconds from its own clock.
    expect(times[index + 1]! - times[index]!).toBeGreaterThanOrEqual(delayMs - 2);
  });
  expect(await bench.event('retryScheduled')).toMatchObject({
    messageId: id,
    attempts: 1,
    delayMs: 50,
    cause: `Error: not yet ${id}`,
  });
  await nothingLeft();
});

test('a retried message keeps its id, routing key, headers and body', async () => {
  const received: Message[] = [];
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [50] }, (message) => {
    received.push(message);
    if (message.attempts === 0) throw new Error('once more');
  });
  await publish(bench.channel, { ...names, routingKey: 'k', data: [1], headers: { tenant: 'a' } });
  await until('it came again', () => received.length === 2);
  const { attempts: _first, signal: _signal, ...first } = received[0]!;
  expect(received[1]).toMatchObject({ ...first, attempts: 1 });
});

test('a message that fails after its last delay becomes a dead letter with its cause (F68)', async () => {
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [50], retryJitter: 0 }, () => {
    throw new TypeError('no such phone');
  });
  const before = Date.now();
  const id = await publish(bench.channel, { ...names, routingKey: 'k', data: { a: 1 } });
  const dead = await bench.takeDeadLetter();
  expect(dead.content.toString()).toBe('{"a":1}');
  expect(dead.properties).toMatchObject({ messageId: id, appId: 'test-producers', type: 'k' });
  expect(dead.properties.headers).toMatchObject({
    [HEADERS.attempts]: 2,
    [HEADERS.cause]: 'TypeError: no such phone',
    [HEADERS.deadReason]: 'exhausted',
    [HEADERS.consumerGroup]: bench.group,
    [HEADERS.routingKey]: 'k',
  });
  const first = dead.properties.headers![HEADERS.firstFailedAt];
  const last = dead.properties.headers![HEADERS.lastFailedAt];
  expect(first).toBeGreaterThanOrEqual(before);
  expect(last).toBeGreaterThanOrEqual(first + 50 - 2);
  await nothingLeft();
});

test('a permanent error makes a dead letter at once', async () => {
  let calls = 0;
  await bench.consumer.subscribe({ ...names, retryDelaysMs: DELAYS_MS }, () => {
    calls += 1;
    throw new PermanentError('the account is closed');
  });
  await publish(bench.channel, { ...names, data: 1 });
  const dead = await bench.takeDeadLetter();
  expect(dead.properties.headers).toMatchObject({
    [HEADERS.deadReason]: 'permanent',
    [HEADERS.attempts]: 1,
    [HEADERS.cause]: 'PermanentError: the account is closed',
  });
  expect(calls).toBe(1);
});

test('a message of somebody else becomes a dead letter and no handler sees it (F74)', async () => {
  let calls = 0;
  await bench.consumer.subscribe(names, () => {
    calls += 1;
  });
  const ours = amqpProperties(names);
  const foreign = [
    { headers: { plain: 'x' } },
    { ...ours, messageId: 'order-7' },
    { ...ours, messageId: amqpProperties(names).messageId },
    { messageId: ours.messageId, appId: 'x', headers: {} },
  ];
  for (const properties of foreign) {
    bench.channel.publish(bench.topic, 'k', Buffer.from('{}'), properties);
    const dead = await bench.takeDeadLetter();
    expect(dead.properties.headers).toMatchObject({
      [HEADERS.deadReason]: 'foreign',
      [HEADERS.attempts]: 0,
    });
    expect(dead.properties.messageId).toBe(
      'messageId' in properties ? properties.messageId : undefined,
    );
  }
  expect(calls).toBe(0);
});

test('a body that was altered or cut short becomes a dead letter (F73)', async () => {
  let calls = 0;
  await bench.consumer.subscribe(names, () => {
    calls += 1;
  });
  const properties = amqpProperties({ ...names, data: { sum: 100 } });
  for (const body of [Buffer.from('{"sum":900}'), Buffer.from('{"sum":100')]) {
    bench.channel.publish(bench.topic, 'k', body, properties);
    const dead = await bench.takeDeadLetter();
    expect(dead.content).toEqual(body);
    expect(dead.properties.headers).toMatchObject({
      [HEADERS.deadReason]: 'altered',
      [HEADERS.cause]: expect.stringContaining('CRC-32'),
    });
  }
  expect(calls).toBe(0);
});

test('a body that is not the JSON it says it is becomes a dead letter, byte for byte', async () => {
  let calls = 0;
  await bench.consumer.subscribe(names, () => {
    calls += 1;
  });
  for (const body of [Buffer.from('{"a":'), Buffer.from([34, 255, 34])]) {
    await publish(bench.channel, { ...names, body });
    const dead = await bench.takeDeadLetter();
    expect(dead.content).toEqual(body);
    expect(dead.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'unreadable' });
  }
  expect(calls).toBe(0);
});

test('a handler that takes too long has failed, and its signal says so (F70)', async () => {
  const signals: AbortSignal[] = [];
  const settings = { ...names, handlerTimeoutMs: 50, retryDelaysMs: [] };
  await bench.consumer.subscribe(settings, ({ signal }) => {
    signals.push(signal);
    return new Promise(() => {});
  });
  await publish(bench.channel, { ...names, data: 1 });
  const dead = await bench.takeDeadLetter();
  expect(dead.properties.headers).toMatchObject({
    [HEADERS.deadReason]: 'exhausted',
    [HEADERS.cause]: 'Error: the handler did not finish within 50 ms',
  });
  expect(signals[0]!.aborted).toBe(true);
});

test('no more handlers run at a time than concurrency allows, and as many as it allows', async () => {
  let running = 0;
  let most = 0;
  let done = 0;
  const total = 12;
  const released = deferred();
  await bench.consumer.subscribe({ ...names, concurrency: 3 }, async () => {
    running += 1;
    most = Math.max(most, running);
    await released.promise;
    // Long enough for RabbitMQ to deliver more, if it were allowed to.
    await pause(30);
    running -= 1;
    done += 1;
  });
  for (let n = 0; n < total; n += 1) await publish(bench.channel, { ...names, data: n });
  await until('as many run as may', () => running === 3);
  released.resolve();
  await until('all were handled', () => done === total);
  expect(most).toBe(3);
});

test('two instances of a group share the messages, and another group gets them all', async () => {
  const seen: Record<string, number[]> = { one: [], two: [], other: [] };
  const into = (who: string) => (message: Message<number>) => seen[who]!.push(message.data);
  const other = await openBench(rabbitmqUrl());
  try {
    await bench.consumer.subscribe<number>({ ...names, concurrency: 1 }, into('one'));
    await bench.consumer.subscribe<number>({ ...names, concurrency: 1 }, into('two'));
    const otherNames = { topic: bench.topic, group: other.group };
    const subscription = await bench.consumer.subscribe<number>(otherNames, into('other'));
    const sent = Array.from({ length: 20 }, (_, n) => n);
    for (const data of sent) await publish(bench.channel, { ...names, data });
    await until('all arrived', () => {
      return seen.other!.length === 20 && seen.one!.length + seen.two!.length === 20;
    });
    expect([...seen.one!, ...seen.two!].sort((a, b) => a - b)).toEqual(sent);
    expect(seen.other).toEqual(sent);
    await subscription.close();
    await bench.channel.deleteQueue(queueName(bench.topic, other.group));
    await bench.channel.deleteQueue(`${queueName(bench.topic, other.group)}:dead`);
  } finally {
    await other.close();
  }
});

test('U23: a topic with an alternate exchange is consumed as it is', async () => {
  const options = { durable: true, alternateExchange: 'amq.fanout' };
  await bench.channel.assertExchange(bench.topic, 'topic', options);
  const received: Message[] = [];
  await bench.consumer.subscribe(names, (message) => received.push(message));
  await publish(bench.channel, { ...names, data: 1 });
  await until('the handler was called', () => received.length === 1);
  await nothingLeft();
});

import { type BatchOutcome, type Message, PermanentError, RetryLater } from '@escrowmq/consumer';
import { startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import { HEADERS, queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { amqpProperties, publish } from '../support/publish.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const DELAYS_MS = [50, 100];
let proxy: TcpProxy;
let bench: ConsumerBench;
let names: { topic: string; group: string; retryDelaysMs: number[] };

beforeEach(async () => {
  proxy = await startTcpProxy(rabbitmqUrl());
  bench = await openBench(rabbitmqUrl(), DELAYS_MS, proxy.url);
  names = { topic: bench.topic, group: bench.group, retryDelaysMs: DELAYS_MS };
});

afterEach(async () => {
  await bench.close();
  await proxy.close();
});

/** Waits in the queue until somebody subscribes. */
async function publishAhead(values: readonly unknown[]): Promise<string[]> {
  const subscription = await bench.consumer.subscribe(names, () => {});
  await subscription.close();
  return Promise.all(values.map((data) => publish(bench.channel, { ...names, data })));
}

async function nothingLeft(): Promise<void> {
  await bench.consumer.close();
  const queue = queueName(bench.topic, bench.group);
  expect(await bench.channel.get(queue, { noAck: true })).toBe(false);
}

const numbers = (count: number) => Array.from({ length: count }, (_, n) => n);

test('what waits is handled in batches of at most batchMax, one after the other, and acknowledged', async () => {
  const sizes: number[] = [];
  const received: number[] = [];
  let running = 0;
  await publishAhead(numbers(25));
  await bench.consumer.subscribeBatch<number>({ ...names, batchMax: 10 }, async (messages) => {
    running += 1;
    expect(running).toBe(1);
    sizes.push(messages.length);
    received.push(...messages.map(({ data }) => data));
    await new Promise(setImmediate);
    running -= 1;
  });
  await until('all arrived', () => received.length === 25);
  expect(received.sort((a, b) => a - b)).toEqual(numbers(25));
  expect(Math.max(...sizes)).toBeLessThanOrEqual(10);
  expect(sizes.length).toBeLessThan(10);
  await nothingLeft();
});

test('with a wait a batch fills', async () => {
  const sizes: number[] = [];
  const options = { ...names, batchMax: 4, batchWaitMs: 10_000 };
  await bench.consumer.subscribeBatch(options, (messages) => {
    sizes.push(messages.length);
  });
  for (const data of numbers(8)) await publish(bench.channel, { ...names, data });
  await until('two batches were handled', () => sizes.length === 2);
  expect(sizes).toEqual([4, 4]);
});

test('those that a handler returns as failed fail alone, each in its own way', async () => {
  const calls: { data: string; attempts: number; postponed: number }[][] = [];
  const errors: Record<string, () => Error> = {
    again: () => new Error('not yet'),
    never: () => new PermanentError('no use'),
    later: () => new RetryLater(40),
  };
  await publishAhead(['good', 'again', 'never', 'later', 'fine']);
  const handler = (messages: readonly Message<string>[]): BatchOutcome => {
    calls.push(messages.map(({ data, attempts, postponed }) => ({ data, attempts, postponed })));
    const failed = messages.flatMap((message) => {
      const error = message.attempts + message.postponed > 0 ? undefined : errors[message.data];
      return error === undefined ? [] : [{ message, error: error() }];
    });
    return { failed };
  };
  await bench.consumer.subscribeBatch<string>({ ...names, batchWaitMs: 30 }, handler);
  const dead = await bench.takeDeadLetter();
  expect(dead.content.toString()).toBe('"never"');
  expect(dead.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'permanent' });
  await until('the others came again', () => calls.flat().length === 7);
  const again = calls.flat().filter(({ attempts, postponed }) => attempts + postponed > 0);
  expect(again).toHaveLength(2);
  expect(again).toContainEqual({ data: 'again', attempts: 1, postponed: 0 });
  expect(again).toContainEqual({ data: 'later', attempts: 0, postponed: 1 });
  await nothingLeft();
});

test('one message that spoils its batch takes no other along', async () => {
  const consumed: number[] = [];
  await publishAhead(numbers(10));
  const options = { ...names, batchWaitMs: 30 };
  await bench.consumer.subscribeBatch<number>(options, async (messages) => {
    if (messages.some(({ data }) => data === 7)) throw new Error('broken by seven');
    consumed.push(...messages.map(({ data }) => data));
  });
  const dead = await bench.takeDeadLetter();
  expect(dead.content.toString()).toBe('7');
  expect(dead.properties.headers).toMatchObject({
    [HEADERS.attempts]: 3,
    [HEADERS.cause]: 'Error: broken by seven',
  });
  await until('the others were consumed', () => consumed.length === 9);
  // It can be taken a moment before its confirm is here.
  await bench.event('deadLettered');
  const deadLetters = bench.events.filter(({ event }) => event === 'deadLettered');
  expect(deadLetters).toHaveLength(1);
  await nothingLeft();
});

test('a batch that names a message of another as failed has failed', async () => {
  const kept: Message[] = [];
  await bench.consumer.subscribeBatch({ ...names, retryDelaysMs: [] }, (messages) => {
    kept.push(...messages);
    return kept.length < 2 ? undefined : { failed: [{ message: kept[0]!, error: new Error() }] };
  });
  const first = await publish(bench.channel, { ...names, data: 1 });
  await until('the first was handled', () => kept.length === 1);
  await publish(bench.channel, { ...names, data: 2 });
  const dead = await bench.takeDeadLetter();
  expect(dead.content.toString()).toBe('2');
  expect(dead.properties.headers![HEADERS.cause]).toBe(
    `Error: the handler returned ${first} as failed, which is not of its batch`,
  );
});

test('what no handler may see is never in a batch', async () => {
  const received: unknown[] = [];
  await publishAhead(['good']);
  const ours = amqpProperties(names);
  const unfit = [
    [Buffer.from('{}'), { headers: {} }],
    [Buffer.from('{"altered":1}'), ours],
    [Buffer.from('{"a":'), amqpProperties({ ...names, body: Buffer.from('{"a":') })],
  ] as const;
  for (const [body, properties] of unfit) {
    bench.channel.publish('', queueName(bench.topic, bench.group), body, properties);
  }
  await bench.channel.waitForConfirms();
  await bench.consumer.subscribeBatch({ ...names, batchWaitMs: 30 }, (messages) => {
    received.push(...messages.map(({ data }) => data));
  });
  const reasons: unknown[] = [];
  for (const _ of unfit) {
    reasons.push((await bench.takeDeadLetter()).properties.headers![HEADERS.deadReason]);
  }
  expect(reasons.sort()).toEqual(['altered', 'foreign', 'unreadable']);
  await until('the good one arrived', () => received.length === 1);
  expect(received).toEqual(['good']);
});

test('the time limit is that of the whole batch', async () => {
  await publishAhead(numbers(3));
  const signals: AbortSignal[] = [];
  const options = { ...names, retryDelaysMs: [], handlerTimeoutMs: 60, batchWaitMs: 30 };
  await bench.consumer.subscribeBatch(options, (messages) => {
    signals.push(...messages.map(({ signal }) => signal));
    return new Promise(() => {});
  });
  for (const _ of numbers(3)) {
    const { headers } = (await bench.takeDeadLetter()).properties;
    expect(headers![HEADERS.cause]).toBe('Error: the handler did not finish within 60 ms');
  }
  expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, true]);
});

test('a batch whose connection is cut comes again whole, and no copy of it is made', async () => {
  await publishAhead(numbers(6));
  const calls: number[][] = [];
  const redelivered: boolean[] = [];
  // Full batches both, however slowly RabbitMQ delivers.
  const options = { ...names, batchMax: 3, batchWaitMs: 10_000 };
  await bench.consumer.subscribeBatch<number>(options, (messages) => {
    calls.push(messages.map(({ data }) => data));
    if (calls.length === 1) {
      proxy.cut();
      return new Promise(() => {});
    }
    redelivered.push(...messages.map((message) => message.redelivered));
    return undefined;
  });
  await until('all came again', () => redelivered.length === 6);
  expect(calls.slice(1).flat().sort()).toEqual(numbers(6));
  const told = bench.events.map(({ event }) => event);
  // Those of the batch, and of the others those that had arrived by then.
  expect(told.filter((event) => event === 'deliveryLost').length).toBeGreaterThanOrEqual(3);
  expect(told).not.toContain('retryScheduled');
  await nothingLeft();
});

test('close waits for the batch that is handled and leaves what waits for the next', async () => {
  await publishAhead(numbers(5));
  const calls: number[][] = [];
  let finish = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const options = { ...names, batchMax: 3, concurrency: 5, batchWaitMs: 10_000 };
  await bench.consumer.subscribeBatch<number>(options, async (messages) => {
    calls.push(messages.map(({ data }) => data));
    await finished;
  });
  await until('the first batch is handled', () => calls.length === 1);
  const closing = bench.consumer.close();
  finish();
  await closing;
  expect(calls).toEqual([[0, 1, 2]]);
  expect(bench.events.map(({ event }) => event)).not.toContain('drainTimedOut');
  const queue = queueName(bench.topic, bench.group);
  for (const data of [3, 4]) expect(String((await bench.take(queue)).content)).toBe(String(data));
  expect(await bench.channel.get(queue)).toBe(false);
});

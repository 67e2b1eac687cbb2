import { type Message, RetryLater } from '@escrowmq/consumer';
import { deadLetterQueueName, HEADERS, retryQueueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { publish } from '../support/publish.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const DELAYS_MS = [50, 400];
let bench: ConsumerBench;
let names: { topic: string; group: string; retryDelaysMs: number[] };

beforeEach(async () => {
  bench = await openBench(rabbitmqUrl(), DELAYS_MS);
  names = { topic: bench.topic, group: bench.group, retryDelaysMs: DELAYS_MS };
});

afterEach(() => bench.close());

interface Seen extends Pick<Message, 'attempts' | 'postponed'> {
  atMs: number;
}

const seen = ({ attempts, postponed }: Message): Seen => ({
  attempts,
  postponed,
  atMs: performance.now(),
});

test('a message asked for later comes not before that, and has spent no attempt', async () => {
  const calls: Seen[] = [];
  const longMs = 15_000;
  const settings = { ...names, retryDelaysMs: [50, longMs] };
  const subscription = await bench.consumer.subscribe(settings, (message) => {
    calls.push(seen(message));
    if (message.postponed < 2) throw new RetryLater(120, 'not paid yet');
    if (message.attempts === 0) throw new Error('a failure');
  });
  await publish(bench.channel, { ...names });
  await until('it came four times', () => calls.length === 4);
  expect(calls.map(({ attempts, postponed }) => [attempts, postponed])).toEqual([
    [0, 0],
    [0, 1],
    [0, 2],
    [1, 2],
  ]);
  // In the queue of the longer delay, with an expiration of its own.
  for (const n of [1, 2]) {
    const waited = calls[n]!.atMs - calls[n - 1]!.atMs;
    expect(waited).toBeGreaterThanOrEqual(118);
    expect(waited).toBeLessThan(longMs);
  }
  expect(await bench.event('postponed')).toMatchObject({
    postponed: 1,
    delayMs: 120,
    cause: 'RetryLater: again in 120 ms: not paid yet',
  });
  await subscription.close();
  await bench.channel.deleteQueue(retryQueueName(bench.topic, bench.group, longMs));
});

test('a time beyond the largest delay is waited for in rounds, and no handler sees them', async () => {
  const calls: Seen[] = [];
  await bench.consumer.subscribe(names, (message) => {
    calls.push(seen(message));
    if (message.postponed === 0) throw new RetryLater(2000);
  });
  await publish(bench.channel, { ...names });
  await until('it came again', () => calls.length === 2);
  expect(calls[1]!.atMs - calls[0]!.atMs).toBeGreaterThanOrEqual(1998);
  expect(calls[1]).toMatchObject({ attempts: 0, postponed: 1 });
  const rounds = bench.events.filter(({ event }) => event === 'postponed');
  expect(rounds.length).toBeGreaterThanOrEqual(2);
});

test('a message that stands behind one with a longer wait leaves when that queue lets it', async () => {
  const calls: { data: number; atMs: number }[] = [];
  const longMs = 2_000;
  const settings = { ...names, retryDelaysMs: [longMs], retryJitter: 0 };
  const subscription = await bench.consumer.subscribe<number>(settings, (message) => {
    const { data, attempts, postponed } = message;
    calls.push({ data, atMs: performance.now() });
    if (data === 1 && attempts === 0) throw new Error('waits two seconds');
    if (data === 2 && postponed === 0) throw new RetryLater(1);
  });
  await publish(bench.channel, { ...names, data: 1 });
  await bench.event('retryScheduled');
  await publish(bench.channel, { ...names, data: 2 });
  await until('both came again', () => calls.length === 4);
  const [first, second] = calls.filter(({ data }) => data === 2);
  const waited = second!.atMs - first!.atMs;
  expect(waited).toBeGreaterThan(100);
  // Not longer than that queue's own delay; the rest is the machine's.
  expect(waited).toBeLessThan(longMs + 5_000);
  await subscription.close();
  await bench.channel.deleteQueue(retryQueueName(bench.topic, bench.group, longMs));
});

test('a message asked for later for ever ends as a dead letter', async () => {
  let calls = 0;
  const settings = { ...names, retryDelaysMs: [1] };
  const subscription = await bench.consumer.subscribe(settings, () => {
    calls += 1;
    throw new RetryLater(1);
  });
  const id = await publish(bench.channel, { ...names });
  const dead = await bench.takeDeadLetter();
  expect(calls).toBe(102);
  expect(dead.properties.messageId).toBe(id);
  expect(dead.properties.headers).toMatchObject({
    [HEADERS.deadReason]: 'exhausted',
    [HEADERS.attempts]: 2,
    [HEADERS.postponed]: 100,
  });
  await subscription.close();
  await bench.channel.deleteQueue(retryQueueName(bench.topic, bench.group, 1));
});

test('messages that fail together come again spread over the jitter', async () => {
  const total = 60;
  const failedAt = new Map<string, number>();
  const waits: number[] = [];
  // Spread over three seconds: a busy machine may keep this process waiting for one of them.
  const delayMs = 6_000;
  const settings = { ...names, retryDelaysMs: [delayMs], retryJitter: 0.5, concurrency: total };
  const subscription = await bench.consumer.subscribe(settings, async ({ id, attempts }) => {
    if (attempts === 0) {
      failedAt.set(id, performance.now());
      await until('all are here', () => failedAt.size === total);
      failedAt.set(id, performance.now());
      throw new Error('down');
    }
    waits.push(performance.now() - failedAt.get(id)!);
  });
  await Promise.all(Array.from({ length: total }, () => publish(bench.channel, { ...names })));
  await until('all came again', () => waits.length === total);
  await subscription.close();
  // Against the last of them, as a busy machine has all of them come later.
  const last = Math.max(...waits);
  const early = waits.filter((wait) => wait < last - delayMs / 5).length;
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(delayMs / 2 - 2);
  expect(early).toBeGreaterThan(total / 5);
  expect(early).toBeLessThan(total);
  expect(await bench.channel.get(deadLetterQueueName(bench.topic, bench.group))).toBe(false);
  await bench.channel.deleteQueue(retryQueueName(bench.topic, bench.group, delayMs));
});

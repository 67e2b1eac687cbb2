import { setTimeout as pause } from 'node:timers/promises';
import { type Message, PermanentError, RetryLater } from '@escrowmq/consumer';
import { HEADERS, queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { PARTITION_PREFETCH } from '../../consumer-sdk/src/ordered/topology.js';
import type { ConsumerBench } from '../support/consumer-bench.js';
import {
  deleteOrdered,
  KeyWatch,
  keyedMessages,
  keysNamed,
  numbersTo,
  type OrderedBenchOptions,
  openOrderedBench,
  publishKeyed,
} from '../support/ordered-bench.js';
import { publish } from '../support/publish.js';
import { deferred } from '../support/ready.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const DELAYS_MS = [10, 20];
let bench: ConsumerBench;
let options: OrderedBenchOptions;

beforeEach(async () => {
  ({ bench, options } = await openOrderedBench(rabbitmqUrl(), DELAYS_MS));
});
afterEach(async () => {
  await bench.close();
  await deleteOrdered(rabbitmqUrl(), options);
});

test('messages of a key are handled in order, one at a time, through failures', async () => {
  const keys = keysNamed(10);
  const watch = new KeyWatch();
  const failures = new Map<string, number>();
  await bench.consumer.subscribe(options, async (message) => {
    const end = watch.begin(message);
    await pause(Math.random() * 3);
    // Every third message fails once or twice.
    const left =
      failures.get(message.id) ??
      (message.sequence! % 3 === 0 ? 1 + (Number(message.orderingKey!.at(-1)) % 2) : 0);
    failures.set(message.id, left - 1);
    end(left > 0 ? 'failed' : 'done');
    if (left > 0) throw new Error('not yet');
  });
  await publishKeyed(bench.channel, keyedMessages(bench.topic, keys, 20));
  await until('all were handled', () => watch.isDone(keys, 20));
  for (const key of keys) {
    expect(watch.done(key)).toEqual(numbersTo(20));
    expect(watch.firstCalls(key)).toEqual(numbersTo(20));
  }
  expect(watch.overlaps).toEqual([]);
  expect(watch.runningMax).toBeGreaterThan(3);
  expect(bench.events.filter(({ event }) => event === 'deadLettered')).toEqual([]);
});

test('a message without a key is consumed the usual way', async () => {
  const received: Message[] = [];
  await bench.consumer.subscribe(options, (message) => {
    received.push(message);
    if (message.attempts === 0) throw new Error('once more');
  });
  await publish(bench.channel, { topic: bench.topic, data: 'no key' });
  await until('it came again', () => received.length === 2);
  expect(received[1]).toMatchObject({
    data: 'no key',
    attempts: 1,
    orderingKey: undefined,
    sequence: undefined,
  });
});

test('only the routing keys of the subscription are consumed; others are returned', async () => {
  const received: unknown[] = [];
  const returned: unknown[] = [];
  bench.channel.on('return', ({ properties }) => returned.push(properties.messageId));
  await bench.consumer.subscribe({ ...options, routingKeys: ['a.*'] }, ({ data }) => {
    received.push(data);
  });
  const message = { topic: bench.topic, orderingKey: 'k', sequence: 1 };
  await publishKeyed(bench.channel, [{ ...message, routingKey: 'a.1', data: 1 }]);
  const [id] = await publishKeyed(bench.channel, [{ ...message, routingKey: 'b.1', data: 2 }]);
  const [next] = await publishKeyed(bench.channel, [
    { ...message, routingKey: 'a.2', sequence: 2, data: 3 },
  ]);
  expect(next).toBeDefined();
  await until('both arrived', () => received.length === 2);
  expect(received).toEqual([1, 3]);
  expect(returned).toEqual([id]);
});

test('a failing message holds its key and no other, and waits in its place', async () => {
  const watch = new KeyWatch();
  const broken = deferred();
  await bench.consumer.subscribe(
    // One handler at a time: a key that waits must let go of it, for long enough that a busy machine
    // handles the others meanwhile.
    { ...options, concurrency: 1, retryDelaysMs: [2_000] },
    (message) => {
      watch.begin(message)('done');
      if (message.orderingKey === 'stuck' && message.sequence === 1 && message.attempts === 0) {
        broken.resolve();
        throw new Error('not yet');
      }
    },
  );
  await publishKeyed(bench.channel, keyedMessages(bench.topic, ['stuck'], 3));
  await broken.promise;
  await publishKeyed(bench.channel, keyedMessages(bench.topic, ['a', 'b'], 5));
  await until('all were handled', () => watch.calls.length === 14);
  expect(watch.firstCalls('stuck')).toEqual([1, 2, 3]);
  // The others were done before the second attempt of the one that failed.
  expect(watch.calls.slice(-3)).toEqual(['stuck 1', 'stuck 2', 'stuck 3']);
});

test('what is given up is a dead letter with its cause, and its key goes on', async () => {
  const handled: string[] = [];
  const failed: number[] = [];
  await bench.consumer.subscribe(options, ({ sequence, attempts }) => {
    handled.push(`${sequence} after ${attempts}`);
    if (sequence === 1) {
      failed.push(Date.now());
      throw new Error('no such phone');
    }
    if (sequence === 2) throw new PermanentError('no use');
  });
  const ids = await publishKeyed(bench.channel, keyedMessages(bench.topic, ['k'], 3));
  await until('the last was handled', () => handled.length === 5);
  expect(handled).toEqual(['1 after 0', '1 after 1', '1 after 2', '2 after 0', '3 after 0']);
  const first = await bench.takeDeadLetter();
  expect(first.properties.messageId).toBe(ids[0]);
  expect(first.properties.headers).toMatchObject({
    [HEADERS.deadReason]: 'exhausted',
    [HEADERS.attempts]: 3,
    [HEADERS.cause]: 'Error: no such phone',
    [HEADERS.consumerGroup]: bench.group,
    [HEADERS.orderingKey]: 'k',
    [HEADERS.sequence]: 1,
  });
  // The first of three, though no copy told of it.
  const { [HEADERS.firstFailedAt]: firstAt, [HEADERS.lastFailedAt]: lastAt } =
    first.properties.headers!;
  expect(firstAt).toBeGreaterThanOrEqual(failed[0]!);
  expect(firstAt).toBeLessThanOrEqual(failed[1]!);
  // Two pauses, of 30 ms less their jitter.
  expect(Number(lastAt) - Number(firstAt)).toBeGreaterThanOrEqual(20);
  const second = await bench.takeDeadLetter();
  expect(second.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'permanent' });
});

test('a message that is to come later waits in its place, and not for longer than it may', async () => {
  const handled: string[] = [];
  const times: number[] = [];
  await bench.consumer.subscribe(options, ({ sequence, attempts, postponed }) => {
    handled.push(`${sequence} after ${attempts} and ${postponed}`);
    times.push(performance.now());
    if (sequence === 1 && postponed < 2) throw new RetryLater(50);
    // RabbitMQ would close the channel long before that.
    if (sequence === 2) throw new RetryLater(60 * 60 * 1000, 'not paid');
  });
  await publishKeyed(bench.channel, keyedMessages(bench.topic, ['k'], 3));
  await until('the last was handled', () => handled.length === 7);
  expect(handled.slice(0, 3)).toEqual(['1 after 0 and 0', '1 after 0 and 1', '1 after 0 and 2']);
  expect(times[2]! - times[0]!).toBeGreaterThanOrEqual(100 - 2);
  expect(handled.slice(3)).toEqual([
    '2 after 0 and 0',
    '2 after 1 and 0',
    '2 after 2 and 0',
    '3 after 0 and 0',
  ]);
  expect((await bench.takeDeadLetter()).properties.headers).toMatchObject({
    [HEADERS.deadReason]: 'exhausted',
    [HEADERS.attempts]: 3,
    [HEADERS.cause]: expect.stringContaining('not paid (no time for that in an ordered group)'),
  });
});

test('another number of partitions is refused, with what to do', async () => {
  await bench.consumer.subscribe(options, () => {});
  const other = { ...options, ordered: { partitions: 8 } };
  const error = await bench.consumer.subscribe(other, () => {}).catch((reason) => reason);
  expect(error).toMatchObject({ code: 'INVALID_CONFIGURATION' });
  expect(error.message).toMatch(/in another number of partitions than 8: .*delete exchange/);
  // As often as one likes with the right one.
  await bench.consumer.subscribe(options, () => {});
});

test('a group that was not ordered is not made so while its queue is there, nor the other way', async () => {
  const { ordered: _, ...unordered } = options;
  const refused = { code: 'INVALID_CONFIGURATION', message: expect.stringContaining('delete it') };
  const subscription = await bench.consumer.subscribe(unordered, () => {});
  await expect(bench.consumer.subscribe(options, () => {})).rejects.toMatchObject(refused);
  await subscription.close();
  await bench.channel.deleteQueue(queueName(bench.topic, bench.group));
  await bench.consumer.subscribe(options, () => {});
  await expect(bench.consumer.subscribe(unordered, () => {})).rejects.toMatchObject(refused);
});

test('a second instance takes over in order when the first closes', async () => {
  const watch = new KeyWatch();
  // More than an instance may hold, so that there is something to go on with too early.
  const count = 2 * PARTITION_PREFETCH;
  const keys = keysNamed(2);
  const closing = deferred();
  const handler = async (message: Message) => {
    const end = watch.begin(message);
    // The first is not to be through with all before it is closed.
    if (watch.calls.length > 20) await closing.promise;
    await pause(5);
    end('done');
  };
  const first = await bench.consumer.subscribe(options, handler);
  await publishKeyed(bench.channel, keyedMessages(bench.topic, keys, count));
  await until('some were handled', () => watch.calls.length > 20);
  await bench.consumer.subscribe(options, handler);
  const closed = first.close();
  closing.resolve();
  await closed;
  expect(watch.calls.length).toBeLessThan(2 * count);
  await until('all were handled', () => watch.isDone(keys, count));
  for (const key of keys) expect(watch.firstCalls(key)).toEqual(numbersTo(count));
  expect(watch.overlaps).toEqual([]);
  // Nothing was applied twice: whoever closes ends what it has begun.
  expect(watch.calls).toHaveLength(2 * count);
});

test('paused, nothing is handled; resumed, it goes on where it was', async () => {
  const watch = new KeyWatch();
  const pausing = deferred();
  const subscription = await bench.consumer.subscribe(options, async (message) => {
    const end = watch.begin(message);
    // Not all are to be handled before the pause.
    if (watch.calls.length > 3) await pausing.promise;
    await pause(5);
    end('done');
  });
  await publishKeyed(bench.channel, keyedMessages(bench.topic, ['k'], 30));
  await until('some were handled', () => watch.calls.length > 3);
  const paused = subscription.pause();
  pausing.resolve();
  await paused;
  const calls = watch.calls.length;
  expect(calls).toBeLessThan(30);
  await publish(bench.channel, { topic: bench.topic, data: 'no key' });
  await pause(100);
  expect(watch.calls).toHaveLength(calls);
  await subscription.resume();
  await until('all were handled', () => watch.isDone(['k'], 30) && watch.isDone([''], 1));
  expect(watch.done('k')).toEqual(numbersTo(30));
});

test('a message that is not ours becomes a dead letter, and nothing waits for it', async () => {
  await bench.consumer.subscribe(options, () => {});
  const headers = { [HEADERS.orderingSlot]: 3 };
  bench.channel.publish(bench.topic, '', Buffer.from('?'), { messageId: 'x', headers });
  const dead = await bench.takeDeadLetter();
  expect(dead.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'foreign' });
});

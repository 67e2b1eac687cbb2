import { setTimeout as pause } from 'node:timers/promises';
import { type Message, PermanentError } from '@escrowmq/consumer';
import { HEADERS, orderedExchangeName, queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import {
  deleteOrdered,
  KeyWatch,
  keyedMessages,
  keysNamed,
  numbersTo,
  publishKeyed,
} from '../support/ordered-bench.js';
import { publish } from '../support/publish.js';
import { openWire } from '../support/rabbit.js';
import { deferred } from '../support/ready.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const PARTITIONS = 4;
const DELAYS_MS = [10, 20];
let bench: ConsumerBench;
let options: {
  topic: string;
  group: string;
  retryDelaysMs: number[];
  ordered: { partitions: number };
};

async function open(rabbitmq = rabbitmqUrl()): Promise<void> {
  bench = await openBench(rabbitmq, DELAYS_MS);
  const { topic, group } = bench;
  options = { topic, group, retryDelaysMs: DELAYS_MS, ordered: { partitions: PARTITIONS } };
}

beforeEach(() => open());
afterEach(async () => {
  await bench.close();
  const { topic, group } = options;
  await deleteOrdered(rabbitmqUrl(), { topic, group, partitions: PARTITIONS });
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
    // One handler at a time: a key that waits must let go of it.
    { ...options, concurrency: 1, retryDelaysMs: [150] },
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
  expect(Math.abs(Number(firstAt) - failed[0]!)).toBeLessThan(20);
  expect(Number(lastAt) - Number(firstAt)).toBeGreaterThanOrEqual(30 - 2);
  const second = await bench.takeDeadLetter();
  expect(second.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'permanent' });
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
  await bench.consumer.subscribe(unordered, () => {});
  const refused = { code: 'INVALID_CONFIGURATION', message: expect.stringContaining('delete it') };
  await expect(bench.consumer.subscribe(options, () => {})).rejects.toMatchObject(refused);
  await bench.consumer.close();
  await bench.channel.deleteQueue(queueName(bench.topic, bench.group));
  const { topic, group } = bench;
  await bench.close();
  await open();
  Object.assign(options, { topic, group });
  await bench.consumer.subscribe(options, () => {});
  await expect(
    bench.consumer.subscribe({ ...unordered, topic, group }, () => {}),
  ).rejects.toMatchObject(refused);
});

test('what was out when the connection was cut comes again in order, and never overlaps', async () => {
  const wire = await openWire(rabbitmqUrl());
  try {
    await bench.close();
    await open(wire.url);
    const keys = keysNamed(10);
    const watch = new KeyWatch();
    await bench.consumer.subscribe(options, async (message) => {
      const end = watch.begin(message);
      // Deaf to its signal: it goes on when the channel is lost.
      await pause(20 + Math.random() * 20);
      end('done');
    });
    const direct = await openBench(rabbitmqUrl());
    await publishKeyed(direct.channel, keyedMessages(bench.topic, keys, 20));
    for (const calls of [20, 80]) {
      await until('some were handled', () => watch.calls.length > calls);
      wire.breakAll();
      const lost = bench.events.length;
      await until('it consumes again', () =>
        bench.events.slice(lost).some(({ event }) => event === 'consuming'),
      );
    }
    await until('all were handled', () => watch.isDone(keys, 20), 30_000);
    for (const key of keys) {
      expect(watch.firstCalls(key)).toEqual(numbersTo(20));
      // After each cut it goes on from what was not acknowledged, and skips nothing.
      const done = watch.done(key);
      const steps = done.slice(1).map((sequence, index) => sequence - done[index]!);
      expect(Math.max(...steps)).toBe(1);
      expect(steps.filter((step) => step !== 1).length).toBeLessThanOrEqual(2);
    }
    expect(watch.overlaps).toEqual([]);
    // The cuts hit something.
    expect(watch.calls.length).toBeGreaterThan(200);
    await direct.consumer.close();
    await direct.channel.deleteExchange(direct.topic);
    await direct.channel.connection.close();
  } finally {
    await bench.consumer.close();
    await wire.close();
    const { topic, group } = bench;
    await open();
    Object.assign(options, { topic, group });
  }
}, 60_000);

test('a second instance takes over in order when the first closes', async () => {
  const watch = new KeyWatch();
  const keys = keysNamed(5);
  const handler = async (message: Message) => {
    const end = watch.begin(message);
    await pause(15);
    end('done');
  };
  const first = await bench.consumer.subscribe(options, handler);
  await publishKeyed(bench.channel, keyedMessages(bench.topic, keys, 30));
  await until('some were handled', () => watch.calls.length > 20);
  await bench.consumer.subscribe(options, handler);
  await first.close();
  await until('all were handled', () => watch.isDone(keys, 30));
  for (const key of keys) expect(watch.firstCalls(key)).toEqual(numbersTo(30));
  expect(watch.overlaps).toEqual([]);
  // Nothing was applied twice: whoever closes ends what it has begun.
  expect(watch.calls).toHaveLength(150);
});

test('paused, nothing is handled; resumed, it goes on where it was', async () => {
  const watch = new KeyWatch();
  const subscription = await bench.consumer.subscribe(options, async (message) => {
    const end = watch.begin(message);
    await pause(5);
    end('done');
  });
  await publishKeyed(bench.channel, keyedMessages(bench.topic, ['k'], 30));
  await until('some were handled', () => watch.calls.length > 3);
  await subscription.pause();
  const calls = watch.calls.length;
  expect(calls).toBeLessThan(30);
  await publish(bench.channel, { topic: bench.topic, data: 'no key' });
  await pause(100);
  expect(watch.calls).toHaveLength(calls);
  await subscription.resume();
  await until('all were handled', () => watch.calls.length === 31);
  expect(watch.done('k')).toEqual(numbersTo(30));
});

test('a message behind a dead-letter queue that is gone waits until it is back', async () => {
  const handled: number[] = [];
  await bench.consumer.subscribe(options, ({ sequence }) => {
    handled.push(sequence!);
    if (sequence === 1) throw new PermanentError('no use');
  });
  await bench.channel.deleteQueue(`${queueName(bench.topic, bench.group)}:dead`);
  await publishKeyed(bench.channel, keyedMessages(bench.topic, ['k'], 2));
  await bench.event('settlingFailed');
  expect(handled).toEqual([1]);
  // Declared again by the consumer, after its pause.
  await bench.event('deadLettered');
  await until('the next was handled', () => handled.length === 2);
  expect(handled).toEqual([1, 2]);
});

test('a message that is not ours becomes a dead letter, and nothing waits for it', async () => {
  await bench.consumer.subscribe(options, () => {});
  const headers = { [HEADERS.orderingSlot]: 3 };
  bench.channel.publish(bench.topic, '', Buffer.from('?'), { messageId: 'x', headers });
  const dead = await bench.takeDeadLetter();
  expect(dead.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'foreign' });
  expect(orderedExchangeName(bench.topic, bench.group)).toContain(':ordered');
});

import { setTimeout as pause } from 'node:timers/promises';
import {
  type Consumer,
  type ConsumerEvent,
  createConsumer,
  PermanentError,
} from '@escrowmq/consumer';
import { startTcpProxy } from '@escrowmq/local-servers';
import { orderingSlotOf, partitionOf, queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import type { ConsumerBench } from '../support/consumer-bench.js';
import {
  deleteOrdered,
  KeyWatch,
  keyedMessages,
  keysNamed,
  numbersTo,
  type OrderedBenchOptions,
  openOrderedBench,
  PARTITIONS,
  publishKeyed,
} from '../support/ordered-bench.js';
import { deferred } from '../support/ready.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

let bench: ConsumerBench;
let options: OrderedBenchOptions;

beforeEach(async () => {
  ({ bench, options } = await openOrderedBench(rabbitmqUrl(), [10]));
});
afterEach(async () => {
  await bench.close();
  await deleteOrdered(rabbitmqUrl(), options);
});

/** With a consumer whose connections the test cuts. */
async function throughAProxy(
  work: (consumer: Consumer, cut: () => Promise<void>) => Promise<void>,
): Promise<void> {
  const proxy = await startTcpProxy(rabbitmqUrl());
  const events: ConsumerEvent[] = [];
  const consumer = createConsumer({ rabbitmq: proxy.url, logger: (event) => events.push(event) });
  async function cut(): Promise<void> {
    const before = events.length;
    proxy.cut();
    await until('every queue is consumed again', () => {
      const begun = events.slice(before).filter(({ event }) => event === 'consuming');
      return begun.length === PARTITIONS + 1;
    });
  }
  try {
    await work(consumer, cut);
  } finally {
    await consumer.close();
    await proxy.close();
  }
}

/** Keys whose messages come through the same queue. */
function keysOfOnePartition(count: number): string[] {
  return keysNamed(100)
    .filter((key) => partitionOf(orderingSlotOf(bench.topic, key), PARTITIONS) === 0)
    .slice(0, count);
}

test('what was out when the connection was cut comes again in order, and never overlaps', async () => {
  const keys = keysNamed(10);
  const watch = new KeyWatch();
  await throughAProxy(async (consumer, cut) => {
    await consumer.subscribe(options, async (message) => {
      const end = watch.begin(message);
      // Deaf to its signal: it goes on when the channel is lost.
      await pause(20 + Math.random() * 20);
      end('done');
    });
    await publishKeyed(bench.channel, keyedMessages(bench.topic, keys, 20));
    for (const calls of [20, 80]) {
      await until('some were handled', () => watch.calls.length > calls);
      await cut();
    }
    await until('all were handled', () => watch.isDone(keys, 20));
  });
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
});

test('what comes again after a cut waits for the handler that still runs from before', async () => {
  const watch = new KeyWatch();
  const gate = deferred();
  const [gated, hanging, free] = keysOfOnePartition(3) as [string, string, string];
  await throughAProxy(async (consumer, cut) => {
    await consumer.subscribe({ ...options, handlerTimeoutMs: 2_000 }, async (message) => {
      const end = watch.begin(message);
      const call = watch.calls.length;
      if (call === 1) await gate.promise;
      if (call === 2) await new Promise(() => {});
      end('done');
    });
    await publishKeyed(bench.channel, keyedMessages(bench.topic, [gated], 1));
    await until('the first handler runs', () => watch.calls.length === 1);
    await publishKeyed(bench.channel, keyedMessages(bench.topic, [hanging], 1));
    await until('both handlers run', () => watch.calls.length === 2);
    await cut();
    // It comes after what was out already.
    await publishKeyed(bench.channel, keyedMessages(bench.topic, [free], 1));
    await until('the other key was handled', () => watch.isDone([free], 1));
    expect(watch.calls).toHaveLength(3);
    gate.resolve();
    await until('it was handled again', () => watch.done(gated).length === 2);
    expect(watch.overlaps).toEqual([]);
    // The one that never ends has the time that any handler has.
    await until('the other one was handled again', () => watch.calls.length === 5);
    expect(watch.calls.at(-1)).toBe(`${hanging} 1`);
  });
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

import { startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import { queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { publish } from '../support/publish.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

let proxy: TcpProxy;
let bench: ConsumerBench;
let names: { topic: string; group: string };

beforeEach(async () => {
  proxy = await startTcpProxy(rabbitmqUrl());
  bench = await openBench(rabbitmqUrl(), [50], proxy.url);
  names = { topic: bench.topic, group: bench.group };
});

afterEach(async () => {
  await bench.close();
  await proxy.close();
});

/** What is delivered to nobody: taken out and put back. */
async function waitsInQueue(): Promise<boolean> {
  const taken = await bench.channel.get(queueName(bench.topic, bench.group));
  if (taken !== false) bench.channel.nack(taken, false, true);
  return taken !== false;
}

test('a paused subscription lets its handler end and takes nothing new until it is resumed', async () => {
  const received: unknown[] = [];
  let finish = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const subscription = await bench.consumer.subscribe(
    { ...names, concurrency: 1 },
    async ({ data }) => {
      received.push(data);
      if (data === 'running') await finished;
    },
  );
  await publish(bench.channel, { ...names, data: 'running' });
  await until('the handler runs', () => received.length === 1);
  let isPaused = false;
  const pausing = subscription.pause().then(() => {
    isPaused = true;
  });
  await publish(bench.channel, { ...names, data: 'waiting' });
  expect(isPaused).toBe(false);
  finish();
  await pausing;
  await until('the second waits', waitsInQueue);
  expect(received).toEqual(['running']);
  await subscription.resume();
  await until('the second arrived', () => received.includes('waiting'));
  expect(bench.events.map(({ event }) => event)).toEqual(
    expect.arrayContaining(['paused', 'resumed']),
  );
});

test('a pause outlives the connection, and so does a resume', async () => {
  const received: unknown[] = [];
  const subscription = await bench.consumer.subscribe(names, ({ data }) => received.push(data));
  await subscription.pause();
  proxy.cut();
  await bench.event('paused', 2);
  await publish(bench.channel, { ...names, data: 1 });
  await until('it waits', waitsInQueue);
  expect(received).toEqual([]);
  proxy.cut();
  // Whether the channel is there already or not.
  await subscription.resume();
  await until('it arrived', () => received.length === 1);
  await bench.event('consuming', 2);
});

test('a queue that was deleted during a pause is there again after the resume', async () => {
  const received: unknown[] = [];
  const subscription = await bench.consumer.subscribe(names, ({ data }) => received.push(data));
  await subscription.pause();
  await bench.channel.deleteQueue(queueName(bench.topic, bench.group));
  await subscription.resume();
  await bench.event('consuming', 2);
  await publish(bench.channel, { ...names, data: 1 });
  await until('it arrived', () => received.length === 1);
});

test('pausing and resuming in quick succession ends as it was asked last', async () => {
  const received: unknown[] = [];
  const subscription = await bench.consumer.subscribe(names, ({ data }) => received.push(data));
  await Promise.all([subscription.pause(), subscription.resume(), subscription.pause()]);
  await publish(bench.channel, { ...names, data: 1 });
  await until('it waits', waitsInQueue);
  await Promise.all([subscription.resume(), subscription.pause(), subscription.resume()]);
  await until('it arrived', () => received.length === 1);
});

test('a consumer pauses all its subscriptions, and closes while they are paused', async () => {
  const other = await openBench(rabbitmqUrl());
  try {
    let calls = 0;
    const count = () => {
      calls += 1;
    };
    await bench.consumer.subscribe(names, count);
    const theirs = { topic: other.topic, group: other.group };
    await bench.consumer.subscribe(theirs, count);
    await bench.consumer.pause();
    await publish(bench.channel, { ...names });
    await publish(bench.channel, { ...theirs });
    await until('one waits', waitsInQueue);
    await bench.consumer.resume();
    await until('both arrived', () => calls === 2);
    await bench.consumer.pause();
    await bench.consumer.close();
  } finally {
    await other.close();
  }
});

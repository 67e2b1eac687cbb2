import { type Message, PermanentError } from '@escrowmq/consumer';
import { startTcpProxy, type TcpProxy } from '@escrowmq/local-servers';
import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { publish } from '../support/publish.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/** The consumer's connections are cut between two bytes of its choice. */
let proxy: TcpProxy;
let bench: ConsumerBench;
let names: { topic: string; group: string; retryDelaysMs: number[] };

beforeEach(async () => {
  proxy = await startTcpProxy(rabbitmqUrl());
  bench = await openBench(rabbitmqUrl(), [50], proxy.url);
  names = { topic: bench.topic, group: bench.group, retryDelaysMs: [50] };
});

afterEach(async () => {
  await bench.close();
  await proxy.close();
});

/** Class and method of `basic.ack` in its frame. */
const BASIC_ACK = String.fromCharCode(0, 60, 0, 80);

/**
 * The default exchange and the queue's name in a publish: after a byte for its length, which no JSON has
 * before it. Announcements name the queues as well, whenever they like.
 */
const publishTo = (queue: string) => String.fromCharCode(0, queue.length) + queue;

async function nothingLeft(): Promise<void> {
  await bench.consumer.close();
  for (const queue of [
    queueName(bench.topic, bench.group),
    deadLetterQueueName(bench.topic, bench.group),
  ]) {
    expect(await bench.channel.get(queue, { noAck: true })).toBe(false);
  }
}

test('a message whose acknowledgement is cut off comes again, as the same one (F65)', async () => {
  const received: Message[] = [];
  await bench.consumer.subscribe(names, (message) => received.push(message));
  const cut = proxy.cutNext(BASIC_ACK, 'before');
  const id = await publish(bench.channel, { ...names, data: 1 });
  await cut;
  await until('it came again', () => received.length === 2);
  expect(received.map((message) => [message.id, message.redelivered, message.attempts])).toEqual([
    [id, false, 0],
    [id, true, 0],
  ]);
  await nothingLeft();
});

test('a retry copy whose confirm is cut off is there, and so is the original (F68)', async () => {
  const received: Message[] = [];
  await bench.consumer.subscribe(names, (message) => {
    received.push(message);
    if (received.length === 1) throw new Error('not yet');
  });
  const queue = retryQueueName(bench.topic, bench.group, 50);
  const cut = proxy.cutNext(publishTo(queue), 'after');
  const id = await publish(bench.channel, { ...names, data: 1 });
  await cut;
  await until('both came', () => received.length === 3);
  expect(received.map((message) => message.id)).toEqual([id, id, id]);
  expect(received.map(({ attempts }) => attempts).sort()).toEqual([0, 0, 1]);
  expect(await bench.event('settlingFailed')).toMatchObject({ messageId: id });
  await nothingLeft();
});

test('a message whose dead letter is cut off before RabbitMQ has it stays (F69)', async () => {
  await bench.consumer.subscribe(names, () => {
    throw new PermanentError('no use');
  });
  const queue = deadLetterQueueName(bench.topic, bench.group);
  const cut = proxy.cutNext(publishTo(queue), 'before');
  const id = await publish(bench.channel, { ...names, data: 1 });
  await cut;
  await bench.event('settlingFailed');
  expect((await bench.takeDeadLetter()).properties.messageId).toBe(id);
  await nothingLeft();
});

test('two instances may have one message at a time, and only one of them settles it (F67)', async () => {
  const ownProxy = await startTcpProxy(rabbitmqUrl());
  const cutOff = await openBench(rabbitmqUrl(), [], ownProxy.url);
  let finish = () => {};
  const finished = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const seen: string[] = [];
  const handler = (who: string) => async (message: Message) => {
    seen.push(`${who} ${message.id}`);
    await finished;
  };
  try {
    await cutOff.consumer.subscribe(names, handler('first'));
    const id = await publish(bench.channel, { ...names, data: 1 });
    await until('the first has it', () => seen.length === 1);
    await bench.consumer.subscribe(names, handler('second'));
    ownProxy.impair({ kind: 'hold' }, 'toClient');
    ownProxy.cut();
    await until('the second has it', () => seen.length === 2);
    expect(seen).toEqual([`first ${id}`, `second ${id}`]);
    finish();
    await cutOff.event('deliveryLost');
    await nothingLeft();
    const told = [...bench.events, ...cutOff.events].map(({ event }) => event);
    expect(told).not.toContain('retryScheduled');
  } finally {
    ownProxy.heal();
    await cutOff.close();
    await ownProxy.close();
  }
});

test('a connection that says nothing any more is given up after two heartbeats (F61)', async () => {
  const ownProxy = await startTcpProxy(rabbitmqUrl());
  const url = new URL(ownProxy.url);
  url.searchParams.set('heartbeat', '1');
  const quiet = await openBench(rabbitmqUrl(), [], url.href);
  try {
    const received: unknown[] = [];
    const theirs = { topic: quiet.topic, group: quiet.group };
    await quiet.consumer.subscribe(theirs, ({ data }) => received.push(data));
    ownProxy.impair({ kind: 'hold' }, 'toClient');
    const lost = await quiet.event('connectionLost');
    expect(lost.cause).toMatch(/heartbeat/i);
    ownProxy.heal();
    await publish(quiet.channel, { ...theirs, data: 1 });
    await until('it arrived', () => received.length === 1);
  } finally {
    ownProxy.heal();
    await quiet.close();
    await ownProxy.close();
  }
});

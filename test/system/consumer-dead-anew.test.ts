import type { Message } from '@escrowmq/consumer';
import { deadLetterQueueName, HEADERS, orderedExchangeName, queueName } from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import type { GetMessage } from 'amqplib';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { deleteOrdered, PARTITIONS, publishKeyed } from '../support/ordered-bench.js';
import { publish } from '../support/publish.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

let bench: ConsumerBench;
let names: { topic: string; group: string; retryDelaysMs: number[] };

beforeEach(async () => {
  bench = await openBench(rabbitmqUrl(), [50]);
  names = { topic: bench.topic, group: bench.group, retryDelaysMs: [50] };
});
afterEach(() => bench.close());

/** As a shovel, the management's "move messages" or a script does it: everything as it is. */
async function moveBack(
  dead: GetMessage,
  exchange = '',
  queue = queueName(bench.topic, bench.group),
) {
  const { headers, ...properties } = dead.properties;
  const options = { ...properties, headers: headers ?? {}, mandatory: true };
  bench.channel.publish(exchange, queue, dead.content, options);
  await bench.channel.waitForConfirms();
}

/** Takes a message without acknowledging it. */
async function lookAt(queue: string): Promise<GetMessage> {
  let seen: GetMessage | false = false;
  await until(`there is a message in ${queue}`, async () => {
    seen = await bench.channel.get(queue);
    return seen !== false;
  });
  return seen as unknown as GetMessage;
}

const attemptsOf = (received: Message[]) => received.map(({ attempts }) => attempts);

describe('N07: a dead letter that goes back begins anew', () => {
  test('with all of its attempts, as often as it goes back', async () => {
    const received: Message[] = [];
    await bench.consumer.subscribe(names, (message) => {
      received.push(message);
      throw new Error('still broken');
    });
    await publish(bench.channel, { ...names, data: 1 });
    const first = await bench.takeDeadLetter();
    await moveBack(first);
    const second = await bench.takeDeadLetter();
    expect(attemptsOf(received)).toEqual([0, 1, 0, 1]);
    expect(received.map(({ returned }) => returned)).toEqual([false, false, true, true]);
    const { headers: before } = first.properties;
    const { headers: after } = second.properties;
    expect(after).toMatchObject({ [HEADERS.attempts]: 2, [HEADERS.deadReason]: 'exhausted' });
    expect(after![HEADERS.firstFailedAt]).toBeGreaterThan(before![HEADERS.lastFailedAt]);
    expect(after).not.toHaveProperty([HEADERS.returnedAt]);
  });

  test('also when it was looked at in its queue as often as would make it a dead letter', async () => {
    const received: Message[] = [];
    await bench.consumer.subscribe(names, (message) => {
      received.push(message);
      if (received.length <= 2) throw new Error('not yet');
    });
    await publish(bench.channel, { ...names, data: 1 });
    const dead = deadLetterQueueName(bench.topic, bench.group);
    let seen = await lookAt(dead);
    for (let looks = 0; looks < 60; looks += 1) {
      // From RabbitMQ 4.3 on a nack that requeues is not counted.
      bench.channel.reject(seen);
      seen = await lookAt(dead);
    }
    expect(seen.properties.headers!['x-delivery-count']).toBeGreaterThan(50);
    await moveBack(seen);
    bench.channel.ack(seen);
    await until('it was consumed', () => received.length === 3);
    expect(attemptsOf(received)).toEqual([0, 1, 0]);
  });

  test('also what somebody rejected between two attempts, so that RabbitMQ made it a dead letter', async () => {
    const received: Message[] = [];
    const subscription = await bench.consumer.subscribe(names, (message) => {
      received.push(message);
      // Before it can come back: what is out then is this attempt alone.
      if (received.length === 1) void subscription.pause();
      throw new Error('still broken');
    });
    await publish(bench.channel, { ...names, data: 1 });
    await bench.event('retryScheduled');
    const main = queueName(bench.topic, bench.group);
    const taken = await lookAt(main);
    expect(taken.properties.headers).toMatchObject({ [HEADERS.attempts]: 1 });
    bench.channel.nack(taken, false, false);
    const dead = await bench.takeDeadLetter();
    expect(dead.properties.headers).not.toHaveProperty([HEADERS.deadReason]);
    await moveBack(dead);
    await subscription.resume();
    await bench.takeDeadLetter();
    expect(attemptsOf(received)).toEqual([0, 0, 1]);
  });

  test('and is handled alone where messages come in batches', async () => {
    const batches: unknown[][] = [];
    const options = { ...names, batchMax: 10, batchWaitMs: 500 };
    const subscription = await bench.consumer.subscribeBatch(options, (messages) => {
      batches.push(messages.map(({ data, attempts }) => [data, attempts]));
      if (messages.some(({ data }) => data === 'bad')) throw new Error('spoilt');
    });
    await publish(bench.channel, { ...names, data: 'bad' });
    const dead = await bench.takeDeadLetter();
    await subscription.pause();
    await moveBack(dead);
    await publish(bench.channel, { ...names, data: 'good' });
    batches.length = 0;
    await subscription.resume();
    await bench.takeDeadLetter();
    expect(batches).toEqual(expect.arrayContaining([[['bad', 0]], [['bad', 1]], [['good', 0]]]));
    expect(batches).toHaveLength(3);
  });

  test('in its partition, where a group is ordered', async () => {
    const options = { ...names, ordered: { partitions: PARTITIONS } };
    try {
      const handled: string[] = [];
      await bench.consumer.subscribe(options, ({ sequence, attempts, returned }) => {
        handled.push(`${sequence}/${attempts}${returned ? ' returned' : ''}`);
        if (sequence === 1) throw new Error('still broken');
      });
      const message = { topic: bench.topic, orderingKey: 'k', data: 1 };
      await publishKeyed(bench.channel, [
        { ...message, sequence: 1 },
        { ...message, sequence: 2 },
      ]);
      const dead = await bench.takeDeadLetter();
      await moveBack(dead, orderedExchangeName(bench.topic, bench.group), '');
      const again = await bench.takeDeadLetter();
      expect(handled).toEqual(['1/0', '1/1', '2/0', '1/0 returned', '1/1 returned']);
      expect(again.properties.headers).toMatchObject({ [HEADERS.attempts]: 2 });
    } finally {
      await bench.consumer.close();
      await deleteOrdered(rabbitmqUrl(), options);
    }
  });
});

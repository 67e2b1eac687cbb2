import { createConsumer, PermanentError } from '@escrowmq/consumer';
import { type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import {
  deadLetterQueueName,
  HEADERS,
  LIMITS,
  queueName,
  RECEIPTS_QUEUE_ARGUMENTS,
  ReceiptBatch,
  retryQueueName,
} from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { connect } from 'amqplib';
import { type ConsumerBench, openBench } from '../support/consumer-bench.js';
import { publish, TEST_RECEIPTS_QUEUE } from '../support/publish.js';
import { until } from '../support/until.js';

/** A server of our own: all connections are cut here, and the receipts queue is read. */
let rabbitmq: PrivateRabbitmq;
let bench: ConsumerBench;
let names: { topic: string; group: string };

beforeAll(async () => {
  rabbitmq = await startPrivateRabbitmq();
}, 120_000);
afterAll(() => rabbitmq.remove(), 60_000);

beforeEach(async () => {
  bench = await openBench(rabbitmq.url, [100]);
  names = { topic: bench.topic, group: bench.group };
});
afterEach(() => bench.close());

/** Publishes on a connection of its own, which nobody has cut yet. */
async function publishAnew(data: unknown): Promise<string> {
  const connection = await connect(rabbitmq.url);
  const id = await publish(await connection.createConfirmChannel(), { ...names, data });
  await connection.close();
  return id;
}

/** A promise to be resolved by the test, for handlers that must not finish by themselves. */
function gate(): { open: () => void; opened: Promise<void> } {
  let open = () => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { open, opened };
}

async function takeReceipts(count: number) {
  const receipts: ReceiptBatch['receipts'] = [];
  while (receipts.length < count) {
    const { content } = await bench.take(TEST_RECEIPTS_QUEUE);
    receipts.push(...ReceiptBatch.parse(JSON.parse(content.toString())).receipts);
  }
  return receipts;
}

test('after its connections were cut a subscription goes on consuming', async () => {
  const received: unknown[] = [];
  await bench.consumer.subscribe(names, ({ data }) => received.push(data));
  await publishAnew('before');
  await until('the first arrived', () => received.includes('before'));
  await rabbitmq.ctl('close_all_connections', 'test');
  await bench.event('connectionLost', 2);
  await bench.event('consuming', 2);
  await publishAnew('after');
  await until('the second arrived', () => received.includes('after'));
});

test('a message whose handler was running when the connection was cut comes again (F63)', async () => {
  const { open, opened } = gate();
  const received: { redelivered: boolean; signal: AbortSignal }[] = [];
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [] }, async (message) => {
    received.push(message);
    if (received.length === 1) await opened;
  });
  await publishAnew('x');
  await until('the handler runs', () => received.length === 1);
  await rabbitmq.ctl('close_all_connections', 'test');
  await until('it came again', () => received.length === 2);
  open();
  expect(received[0]!.signal.aborted).toBe(true);
  expect(received[1]!.redelivered).toBe(true);
  // The cut was not the handler's fault: no dead letter, though there are no retries.
  await bench.event('deliveryLost');
  await bench.consumer.close();
  expect(bench.events.filter(({ event }) => event === 'deadLettered')).toEqual([]);
});

test('a failure that falls into an outage is settled when RabbitMQ is back', async () => {
  const { open, opened } = gate();
  let calls = 0;
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [] }, async () => {
    calls += 1;
    await opened;
    throw new Error('broken');
  });
  await publishAnew('x');
  await until('the handler runs', () => calls === 1);
  await rabbitmq.stop();
  open();
  await rabbitmq.restart();
  // The pauses between attempts have grown to 15 s by then.
  await bench.event('deadLettered', 1, 30_000);
}, 120_000);

test('a queue deleted under the consumer is declared again and consumed', async () => {
  const received: unknown[] = [];
  await bench.consumer.subscribe(names, ({ data }) => received.push(data));
  await bench.channel.deleteQueue(queueName(bench.topic, bench.group));
  await bench.event('consumingLost');
  await bench.event('consuming', 2);
  await publishAnew('after');
  await until('the next message arrived', () => received.includes('after'));
  // Only the channel was lost.
  expect(bench.events.filter(({ event }) => event === 'connectionLost')).toEqual([]);
});

test('what a retry queue holds when its time is over waits for a main queue that is gone', async () => {
  // RabbitMQ would look for the queue again after three minutes.
  const setting = 'rabbit, dead_letter_worker_publisher_confirm_timeout';
  await rabbitmq.ctl('eval', `application:set_env(${setting}, 500).`);
  const queue = queueName(bench.topic, bench.group);
  // Long enough for the main queue to be gone before it is over.
  const delayMs = 2_000;
  const settings = { ...names, retryDelaysMs: [delayMs] };
  const failing = await bench.consumer.subscribe(settings, () => {
    throw new Error('not yet');
  });
  const id = await publishAnew('x');
  await bench.event('retryScheduled');
  await Promise.all([failing.close(), bench.channel.deleteQueue(queue)]);
  // What is on its way back counts no more as a message of the queue.
  const retries = retryQueueName(bench.topic, bench.group, delayMs);
  const waiting = async () => (await bench.channel.checkQueue(retries)).messageCount;
  await until('its time is over', async () => (await waiting()) === 0);
  const received: string[] = [];
  await bench.consumer.subscribe(settings, (message) => received.push(message.id));
  await until('it came again', () => received.includes(id));
});

test('a message stays while its dead-letter queue is gone, and is put away when it is back (F69)', async () => {
  const deadLetters = deadLetterQueueName(bench.topic, bench.group);
  const calledAt: number[] = [];
  await bench.consumer.subscribe(names, () => {
    calledAt.push(performance.now());
    throw new PermanentError('no use');
  });
  await bench.channel.deleteQueue(deadLetters);
  const id = await publishAnew('x');
  const failed = await bench.event('settlingFailed');
  const requeueInMs = 1_000;
  expect(failed).toMatchObject({ messageId: id, requeueInMs });
  // Declared again by the consumer, without anybody's help.
  expect(await bench.event('deadLettered')).toMatchObject({ messageId: id, reason: 'permanent' });
  // Not in a hot loop. A timer counts in whole ms and may be one early.
  expect(calledAt[1]! - calledAt[0]!).toBeGreaterThanOrEqual(requeueInMs - 1);
  expect((await bench.takeDeadLetter()).properties.messageId).toBe(id);
});

/** The queue as a broker declares it, with nothing in it. */
async function emptyReceipts(): Promise<void> {
  const options = { durable: true, arguments: RECEIPTS_QUEUE_ARGUMENTS };
  await bench.channel.assertQueue(TEST_RECEIPTS_QUEUE, options);
  await bench.channel.purgeQueue(TEST_RECEIPTS_QUEUE);
}

test('receipts of consumed messages arrive in batches, and only where they are expected', async () => {
  let calls = 0;
  const total = 40;
  await bench.consumer.subscribe({ ...names, concurrency: 20 }, () => {
    calls += 1;
  });
  await emptyReceipts();
  const expected: string[] = [];
  await publish(bench.channel, { ...names, expects: ['somebody-else'] });
  await publish(bench.channel, { ...names });
  for (let n = 0; n < total; n += 1) {
    expected.push(await publish(bench.channel, { ...names, expects: ['x', bench.group] }));
  }
  await until('all were handled', () => calls === total + 2);
  const receipts = await takeReceipts(total);
  expect(receipts.map(({ messageId }) => messageId).sort()).toEqual(expected.sort());
  expect(receipts[0]).toEqual({
    messageId: expect.any(String),
    consumerGroup: bench.group,
    kind: 'consumed',
    attempts: 0,
  });
});

test('consuming goes on while RabbitMQ is short of memory, and receipts follow later (F56)', async () => {
  const { open, opened } = gate();
  let calls = 0;
  // One at a time: the next message comes only when RabbitMQ has read the acknowledgement.
  await bench.consumer.subscribe({ ...names, concurrency: 1 }, async () => {
    calls += 1;
    await opened;
  });
  await emptyReceipts();
  const message = { ...names, expects: [bench.group] };
  await Promise.all(Array.from({ length: 10 }, () => publish(bench.channel, message)));
  await until('the first handler runs', () => calls === 1);
  await rabbitmq.ctl('set_vm_memory_high_watermark', '0');
  try {
    open();
    expect(await bench.event('blocked')).toMatchObject({ connection: 'publishing' });
    await until('all were handled', () => calls === 10);
  } finally {
    await rabbitmq.ctl('set_vm_memory_high_watermark', '0.4');
  }
  await bench.event('unblocked');
  expect(await takeReceipts(10)).toHaveLength(10);
});

test('close sends the receipts that are still waiting', async () => {
  const { open, opened } = gate();
  // More than one batch, so that some still wait when the last handler has finished.
  const total = LIMITS.receiptsPerMessageMax + 100;
  let started = 0;
  await bench.consumer.subscribe({ ...names, concurrency: total }, async () => {
    started += 1;
    await opened;
  });
  await emptyReceipts();
  const message = { ...names, expects: [bench.group] };
  await Promise.all(Array.from({ length: total }, () => publish(bench.channel, message)));
  await until('all handlers run', () => started === total);
  const closing = bench.consumer.close();
  open();
  await closing;
  expect(await takeReceipts(total)).toHaveLength(total);
});

test('a dead letter that somebody waits for is told by a failed receipt with its cause', async () => {
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [] }, () => {
    throw new Error('no phone 7');
  });
  await emptyReceipts();
  const messageId = await publish(bench.channel, { ...names, expects: [bench.group] });
  expect(await takeReceipts(1)).toEqual([
    {
      messageId,
      consumerGroup: bench.group,
      kind: 'failed',
      attempts: 1,
      cause: 'Error: no phone 7',
    },
  ]);
});

test('a message whose failed receipt was not confirmed is not acknowledged', async () => {
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [] }, () => {
    throw new Error('broken');
  });
  // Somebody made a queue of that name with other properties: no receipt can be sent.
  await bench.channel.deleteQueue(TEST_RECEIPTS_QUEUE);
  await bench.channel.assertQueue(TEST_RECEIPTS_QUEUE, { durable: true });
  const messageId = await publish(bench.channel, { ...names, expects: [bench.group] });
  await bench.event('settlingFailed');
  await bench.channel.deleteQueue(TEST_RECEIPTS_QUEUE);
  await bench.event('deadLettered');
  expect(await takeReceipts(1)).toMatchObject([{ messageId, kind: 'failed' }]);
});

test('close waits for handlers that run, takes nothing new, and leaves the queue', async () => {
  const { open, opened } = gate();
  let started = 0;
  let finished = 0;
  const subscription = await bench.consumer.subscribe(
    { ...names, concurrency: 2, retryDelaysMs: [] },
    async () => {
      started += 1;
      await opened;
      finished += 1;
    },
  );
  await publishAnew('running');
  await until('the handler runs', () => started === 1);
  const closing = subscription.close();
  // A connection and a confirm: many round trips, where closing without waiting takes two.
  const first = await Promise.race([
    closing.then(() => 'closed'),
    publishAnew('waiting').then(() => 'published'),
  ]);
  expect(first).toBe('published');
  open();
  await closing;
  expect({ started, finished }).toEqual({ started: 1, finished: 1 });
  const queue = queueName(bench.topic, bench.group);
  const left = await bench.take(queue);
  expect(left.content.toString()).toBe('"waiting"');
  expect(await bench.channel.get(queue)).toBe(false);
});

test('close gives up on a handler after the drain time; its message stays in the queue', async () => {
  let signal: AbortSignal | undefined;
  const subscription = await bench.consumer.subscribe(
    { ...names, drainTimeoutMs: 50 },
    (message) => {
      signal = message.signal;
      return new Promise(() => {});
    },
  );
  const id = await publishAnew('x');
  await until('the handler runs', () => signal !== undefined);
  await subscription.close();
  expect(signal!.aborted).toBe(true);
  expect(await bench.event('drainTimedOut')).toMatchObject({ running: 1 });
  const left = await bench.take(queueName(bench.topic, bench.group));
  expect(left.properties.messageId).toBe(id);
  expect(left.properties.headers![HEADERS.attempts]).toBeUndefined();
});

test('a message that was redelivered 50 times becomes a dead letter before a handler sees it', async () => {
  let calls = 0;
  const subscription = await bench.consumer.subscribe(names, () => {});
  await subscription.close();
  const id = await publishAnew('kills its consumer');
  const queue = queueName(bench.topic, bench.group);
  for (let n = 0; n < 50; n += 1) {
    await until('it is back', async () => {
      const taken = await bench.channel.get(queue);
      // Like a lost channel, a reject counts as a failed delivery on every RabbitMQ; a nack does up to 4.2.
      if (taken) bench.channel.reject(taken, true);
      return taken !== false;
    });
  }
  await bench.consumer.subscribe(names, () => {
    calls += 1;
  });
  const dead = await bench.takeDeadLetter();
  expect(dead.properties.messageId).toBe(id);
  expect(dead.properties.headers).toMatchObject({ [HEADERS.deadReason]: 'redelivered' });
  expect(calls).toBe(0);
});

test("RabbitMQ's own delivery limit puts a message into the dead-letter queue too (F71)", async () => {
  const subscription = await bench.consumer.subscribe(names, () => {});
  await subscription.close();
  const id = await publishAnew('x');
  const queue = queueName(bench.topic, bench.group);
  for (let n = 0; n <= 100; n += 1) {
    await until('it is back', async () => {
      const taken = await bench.channel.get(queue);
      if (taken) bench.channel.reject(taken, true);
      return taken !== false;
    });
  }
  expect((await bench.takeDeadLetter()).properties.messageId).toBe(id);
});

test('subscribe says which queue exists with other properties, and what to do (F62)', async () => {
  const queue = queueName(bench.topic, bench.group);
  await bench.channel.assertQueue(queue, { durable: true });
  const subscribing = bench.consumer.subscribe(names, () => {});
  await expect(subscribing).rejects.toMatchObject({
    name: 'EscrowError',
    code: 'INVALID_CONFIGURATION',
    message: expect.stringMatching(
      new RegExp(`^queue ${queue} exists .*inequivalent arg.*delete it, and subscribe again$`),
    ),
  });
  // The consumer is not spoilt by it.
  await bench.channel.deleteQueue(queue);
  await bench.consumer.subscribe(names, () => {});
});

test('subscribe rejects at once when the login is refused, without the password', async () => {
  const url = rabbitmq.url.replace('guest:guest', 'guest:secret');
  const consumer = createConsumer({ rabbitmq: url });
  const error = await consumer.subscribe(names, () => {}).catch((reason) => reason);
  expect(error).toMatchObject({ code: 'INVALID_CONFIGURATION' });
  expect(error.message).toContain('refused the login');
  expect(error.message).not.toContain('secret');
  await consumer.close();
});

test('subscribe rejects when RabbitMQ does not answer in time', async () => {
  const lost: string[] = [];
  const consumer = createConsumer({
    rabbitmq: 'amqp://127.0.0.1:1',
    startTimeoutMs: 300,
    logger: ({ event }) => lost.push(event),
  });
  await expect(consumer.subscribe(names, () => {})).rejects.toMatchObject({
    code: 'BROKER_UNREACHABLE',
    message: expect.stringContaining('ECONNREFUSED'),
  });
  expect(lost).toContain('connectionLost');
  await consumer.close();
});

test('a closed consumer refuses to subscribe', async () => {
  await bench.consumer.close();
  await expect(bench.consumer.subscribe(names, () => {})).rejects.toMatchObject({
    code: 'SHUTTING_DOWN',
  });
});

test('U21: a full retry queue holds up its own group alone, is named, and loses nothing', async () => {
  const delayMs = 2_000;
  const retry = retryQueueName(bench.topic, bench.group, delayMs);
  const other = { topic: bench.topic, group: `${bench.group}-other` };
  const numbers = [1, 2, 3, 4, 5, 6];
  const handledAgain = new Set<unknown>();
  const ofOther: unknown[] = [];
  await bench.consumer.subscribe({ ...names, retryDelaysMs: [delayMs] }, ({ data, attempts }) => {
    if (attempts === 0) throw new Error('once more');
    handledAgain.add(data);
  });
  await bench.consumer.subscribe({ ...other, retryDelaysMs: [] }, ({ data }) => ofOther.push(data));
  const limit = (messages: number) => {
    const policy = `{"max-length": ${messages}, "overflow": "reject-publish"}`;
    return rabbitmq.ctl('set_policy', 'full', `^${retry}$`, policy, '--apply-to', 'queues');
  };
  await limit(1);
  for (const data of numbers) await publish(bench.channel, { ...names, data });
  const { cause } = await bench.event('settlingFailed');
  expect(cause).toContain(`did not take the message into queue ${retry} (nack)`);
  await limit(1_000);
  // What was refused several times waits for up to half a minute before it goes back.
  const haveAll = () => handledAgain.size === numbers.length;
  await until('all had their second attempt', haveAll, 90_000);
  // Copies of the one group were refused, and the other group saw each message once.
  expect(ofOther.sort()).toEqual(numbers);
  expect(bench.events.some(({ event }) => event === 'deadLettered')).toBe(false);
  await bench.consumer.close();
  for (const queue of [
    retry,
    queueName(other.topic, other.group),
    deadLetterQueueName(other.topic, other.group),
  ]) {
    await bench.channel.deleteQueue(queue);
  }
});

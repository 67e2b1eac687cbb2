import { type ConsumerReceipt, EscrowError, receiptsQueueName } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import { openRabbit, type Rabbit } from '../../broker/src/rabbit/open-rabbit.js';
import { onChannel, recordingObserver } from '../support/rabbit.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const QUEUE = receiptsQueueName(uniqueName('tests'));
let rabbit: Rabbit;
let observer: ReturnType<typeof recordingObserver>;

afterEach(async () => {
  await rabbit.close();
  await onChannel(rabbitmqUrl(), (channel) => channel.deleteQueue(QUEUE));
});

const receipt = (messageId: string): ConsumerReceipt => ({
  messageId,
  consumerGroup: 'phone-index',
  kind: 'consumed',
});

/** Opens, and waits until the queue is there. */
async function consume(handler: (receipts: ConsumerReceipt[]) => Promise<void>): Promise<void> {
  observer = recordingObserver();
  rabbit = openRabbit({ url: rabbitmqUrl(), observer });
  rabbit.consumeReceipts(QUEUE, handler);
  await until('the queue of receipts has a consumer', hasConsumer);
}

/** False as well while the server, or the queue, is not there. */
async function hasConsumer(): Promise<boolean> {
  try {
    const { consumerCount } = await onChannel(rabbitmqUrl(), (channel) =>
      channel.checkQueue(QUEUE),
    );
    return consumerCount === 1;
  } catch {
    return false;
  }
}

function send(...bodies: (string | object)[]): Promise<void> {
  return onChannel(rabbitmqUrl(), async (channel) => {
    for (const body of bodies) {
      const text = typeof body === 'string' ? body : JSON.stringify(body);
      channel.sendToQueue(QUEUE, Buffer.from(text), { persistent: true });
    }
    // Closing the connection would overtake what has not been confirmed.
    await channel.waitForConfirms();
  });
}

/** What comes back when the broker has gone: everything that was not acknowledged. */
async function leftInQueue(): Promise<number> {
  await rabbit.close();
  return onChannel(rabbitmqUrl(), async (channel) => {
    let count = 0;
    while ((await channel.get(QUEUE, { noAck: true })) !== false) count++;
    return count;
  });
}

test('receipts reach the handler and are acknowledged', async () => {
  const seen: ConsumerReceipt[] = [];
  await consume(async (receipts) => {
    seen.push(...receipts);
  });
  const failed: ConsumerReceipt = {
    ...receipt('m-3'),
    kind: 'failed',
    attempts: 5,
    cause: 'no such phone',
  };
  await send({ receipts: [receipt('m-1'), receipt('m-2')] }, { receipts: [failed] });
  await until('three receipts have come', () => seen.length === 3);
  expect(seen).toEqual([receipt('m-1'), receipt('m-2'), failed]);
  expect(await leftInQueue()).toBe(0);
});

test('messages that wait are handed over together, one call at a time', async () => {
  const calls: string[][] = [];
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  let running = 0;
  let runningMax = 0;
  await consume(async (receipts) => {
    runningMax = Math.max(runningMax, ++running);
    calls.push(receipts.map(({ messageId }) => messageId));
    if (calls.length === 1) await held;
    running--;
  });
  await send({ receipts: [receipt('m-0')] });
  await until('the first call is running', () => calls.length === 1);
  const ids = Array.from({ length: 10 }, (_, n) => `m-${n + 1}`);
  await send(...ids.map((id) => ({ receipts: [receipt(id)] })));
  await until('all are delivered', async () => {
    const { messageCount } = await onChannel(rabbitmqUrl(), (c) => c.checkQueue(QUEUE));
    return messageCount === 0;
  });
  release();
  await until('all are handed over', () => calls.flat().length === 11);
  expect(calls.flat()).toEqual(['m-0', ...ids]);
  expect(calls.length).toBeLessThan(11);
  expect(runningMax).toBe(1);
});

test('garbage is reported without its content and acknowledged, and receipts go on', async () => {
  const seen: ConsumerReceipt[] = [];
  await consume(async (receipts) => {
    seen.push(...receipts);
  });
  await send('secret garbage', '{"receipts":[]}', '{"receipts":[{"messageId":7}]}', '', {
    receipts: [receipt('m-1')],
  });
  await until('the receipt after the garbage has come', () => seen.length === 1);
  expect(observer.told.filter((line) => line.includes('which is dropped'))).toHaveLength(4);
  expect(observer.told.join()).not.toContain('secret');
  expect(await leftInQueue()).toBe(0);
});

test('a handler that fails for a while gets the same receipts again', async () => {
  let calls = 0;
  const taken: string[] = [];
  await consume(async (receipts) => {
    calls++;
    if (calls < 3) throw new EscrowError('STORE_UNAVAILABLE', 'the store is away');
    taken.push(...receipts.map(({ messageId }) => messageId));
  });
  await send({ receipts: [receipt('m-1')] });
  await until('the handler has taken it', () => taken.length > 0);
  expect(taken).toEqual(['m-1']);
  expect(calls).toBe(3);
  expect(observer.told.filter((line) => line.includes('the store is away'))).toHaveLength(2);
  expect(await leftInQueue()).toBe(0);
});

test('a store that is away uses up no deliveries, which RabbitMQ 4 limits', async () => {
  let calls = 0;
  await consume(async () => {
    calls++;
    throw new EscrowError('STORE_UNAVAILABLE', 'the store is away');
  });
  await send({ receipts: [receipt('m-1')] });
  await until('the handler was called three times', () => calls >= 3);
  await rabbit.close();
  const left = await onChannel(rabbitmqUrl(), (channel) => channel.get(QUEUE));
  if (left === false) throw new Error('the queue is empty');
  expect(left.properties.headers?.['x-delivery-count']).toBe(1);
});

test('receipts that the handler can never take hold up no others, and are not lost', async () => {
  const taken = new Set<string>();
  let poisoned = 0;
  await consume(async (receipts) => {
    if (receipts.some(({ messageId }) => messageId === 'poison')) {
      poisoned++;
      throw new Error('no column holds this');
    }
    for (const { messageId } of receipts) taken.add(messageId);
  });
  await send(
    { receipts: [receipt('m-1')] },
    { receipts: [receipt('poison')] },
    { receipts: [receipt('m-2')] },
  );
  await until('the others are taken', () => taken.size === 2);
  await until('it has been tried again', () => poisoned >= 3);
  expect(await leftInQueue()).toBe(1);
});

test('closing waits for the handler, so that what it has taken does not come again', async () => {
  let entered = false;
  let release = () => {};
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  await consume(async () => {
    entered = true;
    await held;
  });
  await send({ receipts: [receipt('m-1')] });
  await until('the handler is called', () => entered);
  const closed = rabbit.close();
  // Connecting takes longer than all that close() would do if it did not wait.
  await hasConsumer();
  release();
  await closed;
  expect(await leftInQueue()).toBe(0);
});

test('consumption comes back after the queue was deleted', async () => {
  const seen: string[] = [];
  await consume(async (receipts) => {
    seen.push(...receipts.map(({ messageId }) => messageId));
  });
  await onChannel(rabbitmqUrl(), (channel) => channel.deleteQueue(QUEUE));
  await until('the queue is declared again', hasConsumer);
  await send({ receipts: [receipt('m-1')] });
  await until('a receipt has come', () => seen.includes('m-1'));
});

test('U14: a queue that RabbitMQ refuses raises one alert, shows, and is consumed once it is repaired', async () => {
  // As another declaration has it; to a missing permission RabbitMQ answers likewise.
  await onChannel(rabbitmqUrl(), (channel) => channel.assertQueue(QUEUE, { durable: false }));
  observer = recordingObserver();
  rabbit = openRabbit({ url: rabbitmqUrl(), observer });
  const taken: string[] = [];
  rabbit.consumeReceipts(QUEUE, async (receipts) => {
    taken.push(...receipts.map(({ messageId }) => messageId));
  });
  const failures = () => observer.told.filter((line) => line.startsWith('consuming receipts'));
  await until('it was tried twice', () => failures().length >= 2);
  expect(rabbit.problems.receipts).toMatch(
    /escrow:receipts:.* can not be consumed: PRECONDITION_FAILED/,
  );
  expect(observer.told.filter((line) => line.startsWith('alert receiptsRefused'))).toHaveLength(1);

  await onChannel(rabbitmqUrl(), (channel) => channel.deleteQueue(QUEUE));
  await until('the queue of receipts has a consumer', hasConsumer, 20_000);
  await until('the problem is over', () => rabbit.problems.receipts === undefined);
  await send({ receipts: [receipt('m-1')] });
  await until('a receipt has come', () => taken.includes('m-1'));
});

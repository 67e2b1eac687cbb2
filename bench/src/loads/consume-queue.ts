import { setTimeout as pause } from 'node:timers/promises';
import { crc32 } from 'node:zlib';
import { createConsumer } from '@escrowmq/consumer';
import { deadLetterQueueName, HEADERS, queueName, retryQueueName } from '@escrowmq/protocol';
import { type Channel, type ConfirmChannel, connect } from 'amqplib';
import { uuidv7 } from 'uuidv7';
import { ROUTING_KEY } from './queue.js';

/** A consumer group's queue, filled before it is consumed. */
export interface ConsumeQueue {
  readonly name: string;
  readonly topic: string;
  /** Resolves when all are confirmed. */
  fill(messages: number): Promise<void>;
  /** Resolves when it is empty. @throws Error when something is left, or became a dead letter */
  empty(): Promise<void>;
  /** Deletes it. */
  close(): Promise<void>;
}

export const GROUP = 'bench';
/** Never used: nothing here fails. Few queues are declared sooner. */
export const RETRY_DELAYS_MS = [1_000];

/** RabbitMQ takes in about as much at once without holding up the publisher. */
const CONFIRMS_PER_WAIT = 1_000;

const POLL_MS = 20;
/** Two seconds: whatever has not been taken out by then was not acknowledged. */
const EMPTY_POLLS_MAX = 100;

/** Declared by the consumer SDK, so that it is the queue its users have. */
export async function openConsumeQueue(rabbitmq: string, dataBytes: number): Promise<ConsumeQueue> {
  const topic = `bench-${uuidv7()}`;
  const consumer = createConsumer({ rabbitmq });
  await consumer.subscribe({ topic, group: GROUP, retryDelaysMs: RETRY_DELAYS_MS }, () => {});
  await consumer.close();

  const model = await connect(rabbitmq, { noDelay: true });
  const channel = await model.createConfirmChannel();
  const name = queueName(topic, GROUP);
  const dead = deadLetterQueueName(topic, GROUP);
  const body = Buffer.from(
    JSON.stringify({ text: 'x'.repeat(dataBytes - JSON.stringify({ text: '' }).length) }),
  );
  return {
    name,
    topic,
    async fill(messages) {
      for (let sent = 1; sent <= messages; sent += 1) {
        publish(channel, topic, body);
        if (sent % CONFIRMS_PER_WAIT === 0) await channel.waitForConfirms();
      }
      await channel.waitForConfirms();
    },
    async empty() {
      for (const queue of [name, dead]) await waitUntilEmpty(channel, queue);
    },
    async close() {
      const retries = RETRY_DELAYS_MS.map((delayMs) => retryQueueName(topic, GROUP, delayMs));
      for (const queue of [name, dead, ...retries]) await channel.deleteQueue(queue);
      await channel.deleteExchange(topic);
      await model.close();
    },
  };
}

/** A quorum queue applies acknowledgements after the channel that brought them has been closed. */
async function waitUntilEmpty(channel: Channel, queue: string): Promise<void> {
  for (let polls = 1; ; polls += 1) {
    const { messageCount } = await channel.checkQueue(queue);
    if (messageCount === 0) return;
    if (polls === EMPTY_POLLS_MAX) throw new Error(`${messageCount} messages are left in ${queue}`);
    await pause(POLL_MS);
  }
}

/** As the broker sends a transaction of one message whose receipt nobody waits for. */
function publish(channel: ConfirmChannel, topic: string, body: Buffer): void {
  const id = uuidv7();
  const now = Date.now();
  channel.publish(topic, ROUTING_KEY, body, {
    persistent: true,
    messageId: `${id}-0`,
    timestamp: Math.floor(now / 1000),
    type: ROUTING_KEY,
    appId: 'bench',
    contentType: 'application/json',
    headers: {
      [HEADERS.transactionId]: id,
      [HEADERS.messageNumber]: 0,
      [HEADERS.messageCount]: 1,
      [HEADERS.topic]: topic,
      [HEADERS.routingKey]: ROUTING_KEY,
      [HEADERS.preparedAt]: now,
      [HEADERS.bodyCrc32]: crc32(body),
    },
  });
}

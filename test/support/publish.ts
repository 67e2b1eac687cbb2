import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { HEADERS, messageIdOf, receiptsQueueName } from '@escrowmq/protocol';
import type { ConfirmChannel, Options } from 'amqplib';

/** Where these tests want their receipts; one file of tests uses it at a time. */
export const TEST_RECEIPTS_QUEUE = receiptsQueueName('tests');

export interface TestMessage {
  topic: string;
  routingKey?: string;
  /** Sent as `application/json`, unless `body` is given. */
  data?: unknown;
  body?: Buffer;
  contentType?: string;
  headers?: Record<string, unknown>;
  transactionId?: string;
  number?: number;
  expects?: string[];
}

/** A new transaction id: a UUIDv7 of the present. */
export function newTransactionId(): string {
  const time = Date.now().toString(16).padStart(12, '0');
  const random = randomBytes(10).toString('hex');
  return [
    time.slice(0, 8),
    time.slice(8),
    `7${random.slice(0, 3)}`,
    `8${random.slice(3, 6)}`,
    random.slice(6, 18),
  ].join('-');
}

/** The AMQP properties that the broker gives a message: see protocol/src/amqp.ts. */
export function amqpProperties(message: TestMessage): Options.Publish & { messageId: string } {
  const { topic, routingKey = '', transactionId = newTransactionId(), number = 0 } = message;
  const now = Date.now();
  return {
    messageId: messageIdOf(transactionId, number),
    timestamp: Math.floor(now / 1000),
    type: routingKey === '' ? topic : routingKey,
    appId: 'test-producers',
    contentType: message.contentType ?? 'application/json',
    deliveryMode: 2,
    ...(message.expects ? { replyTo: TEST_RECEIPTS_QUEUE } : {}),
    headers: {
      ...message.headers,
      [HEADERS.transactionId]: transactionId,
      [HEADERS.messageNumber]: number,
      [HEADERS.messageCount]: number + 1,
      [HEADERS.topic]: topic,
      [HEADERS.routingKey]: routingKey,
      [HEADERS.preparedAt]: now,
      [HEADERS.bodyCrc32]: crc32(bodyOf(message)),
      ...(message.expects ? { [HEADERS.expects]: message.expects.join(',') } : {}),
    },
  };
}

export function bodyOf(message: TestMessage): Buffer {
  return message.body ?? Buffer.from(JSON.stringify(message.data ?? null));
}

/**
 * Publishes to the topic as the broker's forwarder does, and waits for the confirm.
 * @returns the message id
 */
export async function publish(channel: ConfirmChannel, message: TestMessage): Promise<string> {
  const properties = amqpProperties(message);
  const { topic, routingKey = '' } = message;
  channel.publish(topic, routingKey, bodyOf(message), { ...properties, mandatory: true });
  await channel.waitForConfirms();
  return properties.messageId;
}

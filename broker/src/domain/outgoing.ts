import { HEADERS, messageIdOf } from '@escrowmq/protocol';
import type { Committed, Message } from './transaction.js';

/** A message as RabbitMQ gets it. */
export interface Outgoing {
  topic: string;
  routingKey: string;
  body: Buffer;
  messageId: string;
  contentType: string;
  /** The routing key, or the topic when that is empty. */
  type: string;
  producerGroup: string;
  /** The queue for receipts; absent when nobody waits for them. */
  replyTo?: string;
  /** Seconds, as AMQP has it. */
  timestampSeconds: number;
  headers: Record<string, string | number | boolean>;
}

export const contentTypeOf = (message: Message): string =>
  message.dataBase64 === undefined
    ? 'application/json'
    : (message.contentType ?? 'application/octet-stream');

/** Not for an open message: nothing of its transaction is forwarded before the commit fills it. */
export function bodyOf(message: Message): Buffer {
  if (message.dataAtCommit === true) throw new Error('an open message has no body');
  return message.dataBase64 === undefined
    ? Buffer.from(JSON.stringify(message.data))
    : Buffer.from(message.dataBase64, 'base64');
}

export interface MessageToSend {
  transaction: Pick<
    Committed,
    'id' | 'producerGroup' | 'expects' | 'trace' | 'preparedAt' | 'messages'
  >;
  number: number;
  message: Message;
  receiptsQueue: string;
}

/** AMQP short strings hold 255 bytes; a routing key fits by its limit. */
export function outgoingOf({
  transaction,
  number,
  message,
  receiptsQueue,
}: MessageToSend): Outgoing {
  const { id, trace, expects } = transaction;
  return {
    topic: message.topic,
    routingKey: message.routingKey,
    body: bodyOf(message),
    messageId: messageIdOf(id, number),
    contentType: contentTypeOf(message),
    type: message.routingKey === '' ? message.topic : message.routingKey,
    producerGroup: transaction.producerGroup,
    ...(expects.length === 0 ? {} : { replyTo: receiptsQueue }),
    timestampSeconds: Math.floor(transaction.preparedAt / 1000),
    headers: {
      ...message.headers,
      ...(trace.traceparent === undefined ? {} : { traceparent: trace.traceparent }),
      ...(trace.tracestate === undefined ? {} : { tracestate: trace.tracestate }),
      [HEADERS.transactionId]: id,
      [HEADERS.messageNumber]: number,
      [HEADERS.messageCount]: transaction.messages.length,
      [HEADERS.topic]: message.topic,
      [HEADERS.routingKey]: message.routingKey,
      [HEADERS.preparedAt]: transaction.preparedAt,
      ...(expects.length === 0 ? {} : { [HEADERS.expects]: expects.join(',') }),
    },
  };
}

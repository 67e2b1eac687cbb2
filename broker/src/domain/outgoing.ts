import { crc32 } from 'node:zlib';
import {
  CLOUD_EVENTS_PREFIX,
  type CloudEvents,
  expectedGroups,
  HEADERS,
  messageIdOf,
  orderingSlotOf,
} from '@escrowmq/protocol';
import { dueAtOf, isDelayed } from './delivery-time.js';
import type { Place } from './ordering.js';
import type { Committed, Message, StoreTime } from './transaction.js';

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
  > & {
    /** Unknown where nothing waits. */
    decidedAt?: StoreTime | undefined;
    /** Absent where nothing is ordered. */
    places?: readonly Place[] | undefined;
  };
  number: number;
  message: Message;
  receiptsQueue: string;
}

/** The attributes of CloudEvents 1.0, for a message that asked for them. */
function cloudEventsHeaders(
  cloudEvents: CloudEvents,
  { transaction, number, message }: MessageToSend,
): Outgoing['headers'] {
  const headers: Outgoing['headers'] = {};
  const attributes = {
    specversion: '1.0',
    id: messageIdOf(transaction.id, number),
    source: `/producer-groups/${transaction.producerGroup}`,
    type: typeOf(message),
    time: new Date(transaction.preparedAt).toISOString(),
    ...cloudEvents,
  };
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) headers[CLOUD_EVENTS_PREFIX + name] = value;
  }
  return headers;
}

const typeOf = ({ topic, routingKey }: Pick<Message, 'topic' | 'routingKey'>): string =>
  routingKey === '' ? topic : routingKey;

/** For consumers that keep the order, or look whether something is missing. */
function orderHeaders(
  { topic, orderingKey }: Message,
  place: Place | undefined,
): Outgoing['headers'] {
  if (orderingKey === undefined || place === undefined) return {};
  return {
    [HEADERS.orderingKey]: orderingKey,
    [HEADERS.sequence]: place.sequence,
    [HEADERS.orderingSlot]: orderingSlotOf(topic, orderingKey),
  };
}

/** AMQP short strings hold 255 bytes; a routing key fits by its limit. */
export function outgoingOf(toSend: MessageToSend): Outgoing {
  const { transaction, number, message, receiptsQueue } = toSend;
  const { id, trace, decidedAt, places } = transaction;
  const expects = expectedGroups(transaction, message);
  const { cloudEvents } = message;
  const body = bodyOf(message);
  return {
    topic: message.topic,
    routingKey: message.routingKey,
    body,
    messageId: messageIdOf(id, number),
    contentType: contentTypeOf(message),
    type: typeOf(message),
    producerGroup: transaction.producerGroup,
    ...(expects.length === 0 ? {} : { replyTo: receiptsQueue }),
    timestampSeconds: Math.floor(transaction.preparedAt / 1000),
    headers: {
      ...message.headers,
      ...(cloudEvents === undefined ? {} : cloudEventsHeaders(cloudEvents, toSend)),
      ...(trace.traceparent === undefined ? {} : { traceparent: trace.traceparent }),
      ...(trace.tracestate === undefined ? {} : { tracestate: trace.tracestate }),
      [HEADERS.transactionId]: id,
      [HEADERS.messageNumber]: number,
      [HEADERS.messageCount]: transaction.messages.length,
      [HEADERS.topic]: message.topic,
      [HEADERS.routingKey]: message.routingKey,
      [HEADERS.preparedAt]: transaction.preparedAt,
      [HEADERS.bodyCrc32]: crc32(body),
      ...(expects.length === 0 ? {} : { [HEADERS.expects]: expects.join(',') }),
      ...(decidedAt !== undefined && isDelayed(message)
        ? { [HEADERS.dueAt]: dueAtOf(message, decidedAt) }
        : {}),
      ...(places === undefined
        ? {}
        : orderHeaders(
            message,
            places.find((place) => place.number === number),
          )),
    },
  };
}

import { isUtf8 } from 'node:buffer';
import { crc32 } from 'node:zlib';
import { HEADERS, isReceiptsQueue, parseMessageId } from '@escrowmq/protocol';
import type { ConsumeMessage } from 'amqplib';
import { causeOf } from '../cause.js';
import type { BegunWork } from './begun-work.js';
import type { Stop } from './stop.js';
import { isReturned, notBeforeOf, triesOf } from './tries.js';

/**
 * A message as a handler gets it.
 *
 * `Data` is what the caller says the JSON is; it is not checked. Of a typed topic it is what the schema
 * gave: see `TopicMessage`.
 */
export interface Message<Data = unknown> {
  /** `<transactionId>-<number>`, the same on every repeat: what "apply once" hangs on. */
  readonly id: string;
  /** The producer's transaction, a UUIDv7. */
  readonly transactionId: string;
  /** Number of the message in its transaction, from 0. */
  readonly number: number;
  /** The consumer group that this subscription consumes for. */
  readonly group: string;
  /** The topic that the producer sent it to. */
  readonly topic: string;
  /** As the producer gave it, also when the message came through a retry queue. */
  readonly routingKey: string;
  /** The parsed body when the content type is `application/json`, else `undefined`. */
  readonly data: Data;
  /** The exact bytes. */
  readonly body: Buffer;
  /** The media type of `body`. */
  readonly contentType: string;
  /** The producer's own headers and `traceparent`/`tracestate`. */
  readonly headers: Readonly<Record<string, unknown>>;
  /** The group of the producer that sent it. */
  readonly producerGroup: string;
  /** UTC milliseconds of the broker's store. */
  readonly preparedAt: number;
  /**
   * When a delayed message was due, in UTC milliseconds of the broker's store; `undefined` for others.
   */
  readonly dueAt: number | undefined;
  /** What the producer keeps in order; `undefined` where it asked for no order. */
  readonly orderingKey: string | undefined;
  /**
   * Place of the message among those of its topic and ordering key, from 1. Numbers that the
   * group's routing keys leave out, or whose message was cancelled, never come.
   */
  readonly sequence: number | undefined;
  /** Number of attempts of this group that have failed so far: 0 at the first. */
  readonly attempts: number;
  /** How often a handler of this group has thrown `RetryLater` for it, spending no attempt. */
  readonly postponed: number;
  /**
   * It was a dead letter of this group and was moved back into its queue: `attempts` and
   * `postponed` are counted from then on.
   */
  readonly returned: boolean;
  /** RabbitMQ delivered it before and got no acknowledgement; a handler may have seen it. */
  readonly redelivered: boolean;
  /**
   * Aborted when the handler has used up its time, when the channel was lost (the message comes
   * again), or when `close` stops waiting. A handler that goes on regardless does work that
   * nobody counts: pass the signal on to what it waits for.
   */
  readonly signal: AbortSignal;
}

/** Everything of a delivery that is known before its body was looked at. */
export interface Envelope {
  id: string;
  transactionId: string;
  number: number;
  topic: string;
  routingKey: string;
  contentType: string;
  headers: Record<string, unknown>;
  producerGroup: string;
  preparedAt: number;
  bodyCrc32: number;
  dueAt: number | undefined;
  orderingKey: string | undefined;
  sequence: number | undefined;
  attempts: number;
  postponed: number;
  /** It has been a dead letter of this group. */
  returned: boolean;
  /** UTC milliseconds of a consumer: still on its way through retry queues until then. */
  notBefore: number | undefined;
  /** The queue for this group's receipt; absent when nobody waits for it. */
  receiptsQueue: string | undefined;
}

export type ParsedDelivery =
  | { kind: 'message'; envelope: Envelope; data: unknown }
  /** Ours, but the body is not the one that the broker sent. */
  | { kind: 'altered'; envelope: Envelope; cause: string }
  /** Ours, but the body is not what it says it is. */
  | { kind: 'unreadable'; envelope: Envelope; cause: string }
  | { kind: 'foreign'; cause: string };

/** Reads a delivery for one consumer group; what is not a message of ours is told, not thrown. */
export function parseDelivery(delivery: ConsumeMessage, group: string): ParsedDelivery {
  const envelope = parseEnvelope(delivery, group);
  if (typeof envelope === 'string') return { kind: 'foreign', cause: envelope };
  const checksum = crc32(delivery.content);
  if (checksum !== envelope.bodyCrc32) {
    const cause = `the body has CRC-32 ${checksum} and left the broker with ${envelope.bodyCrc32}`;
    return { kind: 'altered', envelope, cause };
  }
  if (!isJson(envelope.contentType)) return { kind: 'message', envelope, data: undefined };
  // Bytes that are not UTF-8 are refused, where toString would replace them.
  if (!isUtf8(delivery.content)) {
    return { kind: 'unreadable', envelope, cause: 'the body is not UTF-8' };
  }
  try {
    return { kind: 'message', envelope, data: JSON.parse(textOf(delivery.content)) };
  } catch (error) {
    return { kind: 'unreadable', envelope, cause: `the body is not JSON: ${causeOf(error)}` };
  }
}

/** Without the mark that some writers put in front. */
function textOf(body: Buffer): string {
  const text = body.toString();
  return text.startsWith('\uFEFF') ? text.slice(1) : text;
}

/** With or without parameters: `application/json; charset=utf-8` as well. */
function isJson(contentType: string): boolean {
  return contentType === 'application/json' || /^application\/json\s*(;|$)/i.test(contentType);
}

/** The envelope, or what is wrong with it. */
function parseEnvelope(delivery: ConsumeMessage, group: string): Envelope | string {
  const { messageId, appId, contentType, replyTo } = delivery.properties;
  const headers: Record<string, unknown> = delivery.properties.headers ?? {};
  if (typeof messageId !== 'string') return 'the message has no message id';
  const id = parseMessageId(messageId);
  if (id === undefined) return 'the message id is not <transaction id>-<number>';
  if (headers[HEADERS.transactionId] !== id.transactionId) {
    return `header ${HEADERS.transactionId} is missing or does not match the message id`;
  }
  if (headers[HEADERS.messageNumber] !== id.number) {
    return `header ${HEADERS.messageNumber} is missing or does not match the message id`;
  }
  const topic = headers[HEADERS.topic];
  if (typeof topic !== 'string') return `header ${HEADERS.topic} is missing`;
  const routingKey = headers[HEADERS.routingKey];
  if (typeof routingKey !== 'string') return `header ${HEADERS.routingKey} is missing`;
  const preparedAt = headers[HEADERS.preparedAt];
  if (typeof preparedAt !== 'number') return `header ${HEADERS.preparedAt} is missing`;
  const bodyCrc32 = headers[HEADERS.bodyCrc32];
  if (typeof bodyCrc32 !== 'number') return `header ${HEADERS.bodyCrc32} is missing`;
  const dueAt = headers[HEADERS.dueAt];
  const orderingKey = headers[HEADERS.orderingKey];
  const sequence = headers[HEADERS.sequence];
  if (typeof appId !== 'string') return 'the app id, which names the producer group, is missing';
  return {
    id: messageId,
    ...id,
    topic,
    routingKey,
    contentType: typeof contentType === 'string' ? contentType : 'application/octet-stream',
    headers: ownHeaders(headers),
    producerGroup: appId,
    preparedAt,
    bodyCrc32,
    dueAt: typeof dueAt === 'number' ? dueAt : undefined,
    orderingKey: typeof orderingKey === 'string' ? orderingKey : undefined,
    sequence: typeof sequence === 'number' ? sequence : undefined,
    ...triesOf(headers, group),
    returned: isReturned(headers, group),
    notBefore: notBeforeOf(headers, group),
    receiptsQueue: isReceiptsQueue(replyTo) && isExpected(headers, group) ? replyTo : undefined,
  };
}

const isExpected = (headers: Record<string, unknown>, group: string): boolean =>
  String(headers[HEADERS.expects] ?? '')
    .split(',')
    .includes(group);

/** What a handler gets; a class, so that most messages never make a signal. */
export class ReceivedMessage implements Message<never> {
  readonly id: string;
  readonly transactionId: string;
  readonly number: number;
  readonly group: string;
  readonly topic: string;
  readonly routingKey: string;
  /** Written once more where a schema gives something else: before the handler has it. */
  data: never;
  /** Of the schema that the data fit. */
  version: number | undefined;
  readonly body: Buffer;
  readonly contentType: string;
  readonly headers: Readonly<Record<string, unknown>>;
  readonly producerGroup: string;
  readonly preparedAt: number;
  readonly dueAt: number | undefined;
  readonly orderingKey: string | undefined;
  readonly sequence: number | undefined;
  readonly attempts: number;
  readonly postponed: number;
  readonly returned: boolean;
  readonly redelivered: boolean;
  readonly #stop: Stop;
  readonly #work: BegunWork | undefined;

  constructor(original: ConsumeMessage, parts: MessageParts) {
    const { envelope, data, group, stop, work } = parts;
    this.id = envelope.id;
    this.transactionId = envelope.transactionId;
    this.number = envelope.number;
    this.group = group;
    this.topic = envelope.topic;
    this.routingKey = envelope.routingKey;
    // What the caller of subscribe says it is.
    this.data = data as never;
    this.version = parts.version;
    this.body = original.content;
    this.contentType = envelope.contentType;
    this.headers = envelope.headers;
    this.producerGroup = envelope.producerGroup;
    this.preparedAt = envelope.preparedAt;
    this.dueAt = envelope.dueAt;
    this.orderingKey = envelope.orderingKey;
    this.sequence = envelope.sequence;
    this.attempts = envelope.attempts;
    this.postponed = envelope.postponed;
    this.returned = envelope.returned;
    this.redelivered = original.fields.redelivered;
    this.#stop = stop;
    this.#work = work;
  }

  /** What its handler has begun for it; undefined for what is no message of this class. */
  static workOf(message: object): BegunWork | undefined {
    return #work in message ? message.#work : undefined;
  }

  get signal(): AbortSignal {
    return this.#stop.signal;
  }
}

export interface MessageParts {
  envelope: Envelope;
  data: unknown;
  /** @default the topic is plain, or the data are not checked yet */
  version?: number | undefined;
  group: string;
  /** Behind the message's signal. */
  stop: Stop;
  /** What its handler begins for it. @default nobody waits for it */
  work?: BegunWork;
}

/** Also of what is not a message of ours: one without a key is alone with its like. */
export function orderingKeyOf(delivery: ConsumeMessage): string {
  const key: unknown = delivery.properties.headers?.[HEADERS.orderingKey];
  return typeof key === 'string' ? key : '';
}

function ownHeaders(headers: Record<string, unknown>): Record<string, unknown> {
  const own: Record<string, unknown> = {};
  for (const name of Object.keys(headers)) {
    if (!RESERVED_HEADER.test(name)) own[name] = headers[name];
  }
  return own;
}

const RESERVED_HEADER = /^(x-|escrow-)/i;

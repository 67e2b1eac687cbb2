import {
  type FieldError,
  optionNames,
  parse,
  RoutingKey,
  refuseUnknown,
  Topic,
  type TopicPlaces,
} from '@escrowmq/protocol';
import type { Message } from '../delivery/message.js';
import {
  DRAIN_TIMEOUT_MS_DEFAULT,
  HANDLER_TIMEOUT_MS_DEFAULT,
  HANDLER_TIMEOUT_MS_MAX,
  integer,
  refuse,
  routingKeyProblems,
  WAIT_MS_MAX,
} from '../options.js';
import { type Given, namedTopic } from '../typed/named-topic.js';

/**
 * Why messages may be missing: the queue was lost with its channel or connection and is a new one
 * now, or it was full and dropped its oldest.
 */
export type GapReason = 'reconnected' | 'overflow';

/** A message without what only a consumer group has. */
export type EphemeralMessage<Data = unknown> = Omit<
  Message<Data>,
  'group' | 'attempts' | 'returned'
>;

/** Handles one message; one that throws or takes too long loses it. */
export type EphemeralHandler<Data> = (message: EphemeralMessage<Data>) => unknown;

/** Options of `subscribeEphemeral`. */
export interface EphemeralOptions {
  /** The topic to consume. */
  topic: string;
  /** Which messages of the topic, as RabbitMQ's topic patterns. @default ['#'] */
  routingKeys?: readonly string[];
  /**
   * Called when messages may be missing, never together with the handler, and before any message
   * that came after the gap is handled: whoever keeps something that messages keep fresh throws it
   * away here. When it throws or takes longer than `handlerTimeoutMs`, it is called again, after a
   * pause and with a new queue, until it succeeds; no message is handled meanwhile.
   */
  onGap: (reason: GapReason) => unknown;
  /**
   * Number of messages that may wait for this instance; then the oldest are dropped and `onGap` is told.
   * @default 10000: what a cache that is so far behind would rather load anew
   */
  queueMessagesMax?: number;
  /** Bytes of bodies that may wait, likewise. @default 67108864 (64 MiB): 10000 of 6.5 KiB */
  queueBytesMax?: number;
  /** A handler that takes longer has failed. It is told by `message.signal`. @default 60000 */
  handlerTimeoutMs?: number;
  /** How long `close` waits for the handler that runs, in ms. @default 30000 */
  drainTimeoutMs?: number;
}

export type EphemeralSettings = Required<EphemeralOptions> & {
  /** Of a typed topic: the schemas that messages have to fit. */
  places: TopicPlaces | undefined;
};

const QUEUE_MESSAGES_MAX_DEFAULT = 10_000;
/** RabbitMQ keeps a classic queue of that size on disk without trouble; more is no cache's food. */
const QUEUE_MESSAGES_MAX_MAX = 1_000_000;
const QUEUE_BYTES_MAX_DEFAULT = 64 * 1024 * 1024;
/** One message has at most a mebibyte, and a queue that can't hold it would drop it at once. */
const QUEUE_BYTES_MAX_MIN = 1024 * 1024;
const QUEUE_BYTES_MAX_MAX = 4 * 1024 * 1024 * 1024;

const EPHEMERAL_OPTIONS = optionNames<EphemeralOptions>({
  topic: true,
  routingKeys: true,
  onGap: true,
  queueMessagesMax: true,
  queueBytesMax: true,
  handlerTimeoutMs: true,
  drainTimeoutMs: true,
});

/** @throws EscrowError INVALID_NAME, INVALID_CONFIGURATION or UNKNOWN_FIELD */
export function parseEphemeralOptions(options: Given<EphemeralOptions>): EphemeralSettings {
  refuseUnknown(options, EPHEMERAL_OPTIONS, 'subscribeEphemeral');
  const { topic, routingKeys = ['#'], places } = namedTopic(options);
  const {
    onGap,
    queueMessagesMax = QUEUE_MESSAGES_MAX_DEFAULT,
    queueBytesMax = QUEUE_BYTES_MAX_DEFAULT,
    handlerTimeoutMs = HANDLER_TIMEOUT_MS_DEFAULT,
    drainTimeoutMs = DRAIN_TIMEOUT_MS_DEFAULT,
  } = options;
  const problems: FieldError[] = [
    ...integer('queueMessagesMax', queueMessagesMax, { min: 1, max: QUEUE_MESSAGES_MAX_MAX }),
    ...integer('queueBytesMax', queueBytesMax, {
      min: QUEUE_BYTES_MAX_MIN,
      max: QUEUE_BYTES_MAX_MAX,
    }),
    ...integer('handlerTimeoutMs', handlerTimeoutMs, { min: 1, max: HANDLER_TIMEOUT_MS_MAX }),
    ...integer('drainTimeoutMs', drainTimeoutMs, { min: 0, max: WAIT_MS_MAX }),
    ...routingKeyProblems(routingKeys),
  ];
  if (typeof onGap !== 'function') {
    problems.push({ path: 'onGap', message: 'must be a function: messages may be missed' });
  }
  refuse(problems, 'subscribeEphemeral');
  for (const key of routingKeys) parse(RoutingKey, key, 'a routing key');
  return {
    topic: parse(Topic, topic, 'topic'),
    places,
    // A copy: the caller's array may change while the subscription lives.
    routingKeys: [...routingKeys],
    onGap,
    queueMessagesMax,
    queueBytesMax,
    handlerTimeoutMs,
    drainTimeoutMs,
  };
}

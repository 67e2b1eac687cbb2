/**
 * How a message looks in RabbitMQ, so that a consumer without the SDK reads everything with any
 * AMQP client. Properties: `messageId` (`<transactionId>-<n>`, the same on every repeat),
 * `timestamp` (prepare, in seconds), `type` (the routing key, or the topic when that is empty),
 * `appId` (the producer group), `contentType`, `deliveryMode` 2, and `replyTo` (the queue for
 * receipts) where somebody waits for them. Callers' own headers, then
 * `traceparent` and `tracestate` as they were at prepare, then these:
 */
export const HEADERS = {
  /** The transaction, a UUID of version 7. */
  transactionId: 'escrow-transaction-id',
  /** Number of the message in its transaction, from 0. */
  messageNumber: 'escrow-message-number',
  /** How many messages the transaction has. */
  messageCount: 'escrow-message-count',
  /** As prepared. */
  topic: 'escrow-topic',
  /** As prepared: a message that came through a retry queue has another AMQP routing key. */
  routingKey: 'escrow-routing-key',
  /** UTC milliseconds of the store's clock. */
  preparedAt: 'escrow-prepared-at',
  /** CRC-32 of the body as RabbitMQ carries it (zlib's, unsigned): what a consumer must get. */
  bodyCrc32: 'escrow-body-crc32',
  /** Comma-separated consumer groups whose receipts on this message are waited for; absent when none. */
  expects: 'escrow-expects',
  /** UTC milliseconds of the store's clock before which a delayed message does not leave. */
  dueAt: 'escrow-due-at',
  /** As prepared; absent without one. */
  orderingKey: 'escrow-ordering-key',
  /** Place of the message among those of its topic and ordering key, from 1, without gaps. */
  sequence: 'escrow-sequence',
  /** Hash slot of the ordering key, by which an ordered group's partition queues are bound. */
  orderingSlot: 'escrow-ordering-slot',

  // Set by the consumer SDK on messages in retry and dead-letter queues.
  /** Attempts that have failed so far. */
  attempts: 'escrow-attempts',
  /** How often a handler asked for the message later (`RetryLater`), which spends no attempt. */
  postponed: 'escrow-postponed',
  /** UTC milliseconds of a consumer's clock: on its way through several retry queues until then. */
  notBefore: 'escrow-not-before',
  /** When the first attempt failed, in UTC milliseconds of a consumer's clock. */
  firstFailedAt: 'escrow-first-failed-at',
  /** When the last attempt failed, in UTC milliseconds of a consumer's clock. */
  lastFailedAt: 'escrow-last-failed-at',
  /** The group whose retry or dead letter it is. */
  consumerGroup: 'escrow-consumer-group',
  /** Why the last attempt failed. */
  cause: 'escrow-cause',
  /** UTC milliseconds of a consumer's clock: it was a dead letter before and was moved back. */
  returnedAt: 'escrow-returned-at',
  /** Why it is a dead letter: exhausted, permanent, mismatch, redelivered, foreign, altered or unreadable. */
  deadReason: 'escrow-dead-reason',
  /** Names of headers that a copy had no room for, separated by commas; absent when it had. */
  leftOut: 'escrow-left-out',
} as const;

/**
 * Before each CloudEvents attribute of a message that asked for them (AMQP binding, binary mode:
 * `id`, `source`, `type`, `specversion`, `time`, and where given `subject` and `dataschema`; the
 * `datacontenttype` is the property `contentType`). The binding also knows `cloudEvents_`, for JMS
 * clients, whose names have no colon; one message has one of the two.
 */
export const CLOUD_EVENTS_PREFIX = 'cloudEvents:';

/** Colons stand in no topic and no group, so two pairs never share a queue. */
export const queueName = (topic: string, consumerGroup: string) =>
  `escrow:${topic}:${consumerGroup}`;
/** The queue in which a group's messages wait for one delay. */
export const retryQueueName = (topic: string, consumerGroup: string, delayMs: number) =>
  `${queueName(topic, consumerGroup)}:retry-${delayMs}ms`;
/** The queue of a group's dead letters. */
export const deadLetterQueueName = (topic: string, consumerGroup: string) =>
  `${queueName(topic, consumerGroup)}:dead`;

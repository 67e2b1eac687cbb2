import type { AnyTopic } from '@escrowmq/protocol';
import type { BatchHandler, BatchOptions } from './batch/options.js';
import type { Handler } from './delivery/consume-one.js';
import type { EphemeralHandler, EphemeralOptions } from './ephemeral/options.js';
import type { SubscribeOptions } from './options.js';
import type {
  EphemeralTopicMessage,
  KeyOf,
  TopicMessage,
  TypedBatchOptions,
  TypedEphemeralOptions,
  TypedSubscribeOptions,
} from './typed/options.js';

/** A running subscription, as `subscribe` and its like resolve to. */
export interface Subscription {
  /**
   * Stops the deliveries and keeps everything else: the queue goes on collecting, for other
   * instances and for `resume`. Resolves when the handlers that ran have ended, so a handler may
   * call it and must not wait for it. It stays paused when the connection is lost and comes back.
   */
  pause(): Promise<void>;
  /** Resolves when deliveries flow again; while RabbitMQ is away they begin when it is back. */
  resume(): Promise<void>;
  /**
   * Takes no more messages, waits for the handlers that run (at most `drainTimeoutMs`), and leaves
   * the queue in place: it goes on collecting for the next instance. May be called again.
   */
  close(): Promise<void>;
}

/** A consumer, made by `createConsumer`: its two connections and all of its subscriptions. */
export interface Consumer {
  /**
   * Consumes a topic for a consumer group; resolves when deliveries flow. From then on lost
   * connections, channels and queues heal by themselves.
   *
   * The message is acknowledged after `handler` has resolved. When it throws or takes too long, the
   * message comes again after the next of `retryDelaysMs`, and at last goes to the dead-letter
   * queue with the cause; after a `PermanentError` it goes there at once, and after a `RetryLater`
   * it comes again when it was asked for. Delivery is at least once: see `once`.
   *
   * @throws EscrowError INVALID_NAME, UNKNOWN_FIELD, INVALID_CONFIGURATION (also when the queues
   *   exist with other properties), BROKER_UNREACHABLE, SHUTTING_DOWN after `close`
   * @example
   * const options = { topic: 'user', group: 'phone-index', routingKeys: ['registered'] };
   * await consumer.subscribe<{ userId: number }>(options, async ({ data }) => {
   *   await index.add(data.userId);
   * });
   */
  subscribe<Topic extends AnyTopic, Key extends KeyOf<Topic> = KeyOf<Topic>>(
    options: TypedSubscribeOptions<Topic, Key>,
    handler: (message: TopicMessage<Topic, Key>) => unknown,
  ): Promise<Subscription>;
  subscribe<Data = unknown>(
    options: SubscribeOptions,
    handler: Handler<Data>,
  ): Promise<Subscription>;
  /**
   * Consumes a topic for this very instance, as long as it lives: for a cache, or for whoever is
   * connected to it. Every instance gets every message from now on, in the order of the queue and
   * one after the other; nothing is kept for one that is away.
   *
   * Messages may be missed, and `onGap` says when: after every loss of the connection or channel,
   * and when more waited than `queueMessagesMax`. A handler that throws or takes too long is told
   * to the logger (`messageDropped`), and its message is gone: no attempt follows, no dead letter
   * and no receipt. `pause` gives the queue up as well, and `resume` begins with a gap.
   *
   * For RabbitMQ its queue is one like any other: a message on a topic that has no other counts as
   * forwarded. What must not get lost needs a consumer group.
   *
   * @throws EscrowError like `subscribe`
   * @example
   * const options = { topic: 'price', routingKeys: ['#.changed'], onGap: () => prices.clear() };
   * await consumer.subscribeEphemeral<{ sku: string }>(options, (message) => {
   *   prices.delete(message.data.sku);
   * });
   */
  subscribeEphemeral<Topic extends AnyTopic, Key extends KeyOf<Topic> = KeyOf<Topic>>(
    options: TypedEphemeralOptions<Topic, Key>,
    handler: (message: EphemeralTopicMessage<Topic, Key>) => unknown,
  ): Promise<Subscription>;
  subscribeEphemeral<Data = unknown>(
    options: EphemeralOptions,
    handler: EphemeralHandler<Data>,
  ): Promise<Subscription>;
  /**
   * Like `subscribe`, with many messages in one call: for work that is cheaper together, such as
   * one database transaction. One batch is handled at a time.
   *
   * When the handler resolves, all are consumed; it may return those that failed. When it throws or
   * takes too long, all have failed, and each comes again by itself and is handled alone, so that
   * one that spoils the batch takes no other along. What no handler may see never gets into a batch.
   *
   * @throws EscrowError like `subscribe`
   * @example
   * await consumer.subscribeBatch<Order>({ topic: 'order', group: 'index' }, async (messages) => {
   *   const results = await index.bulk(messages.map(({ data }) => data));
   *   const failed = messages.flatMap((message, n) =>
   *     results[n].error ? [{ message, error: results[n].error }] : [],
   *   );
   *   return { failed };
   * });
   */
  subscribeBatch<Topic extends AnyTopic, Key extends KeyOf<Topic> = KeyOf<Topic>>(
    options: TypedBatchOptions<Topic, Key>,
    handler: (messages: readonly TopicMessage<Topic, Key>[]) => ReturnType<BatchHandler<unknown>>,
  ): Promise<Subscription>;
  subscribeBatch<Data = unknown>(
    options: BatchOptions,
    handler: BatchHandler<Data>,
  ): Promise<Subscription>;
  /** Pauses every subscription that there is now; those made later are not paused. */
  pause(): Promise<void>;
  /** Resumes every subscription. */
  resume(): Promise<void>;
  /** Closes every subscription, sends the receipts that wait, and closes the connections. */
  close(): Promise<void>;
}

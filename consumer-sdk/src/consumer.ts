import { EscrowError, isEscrowError, queueName } from '@escrowmq/protocol';
import type { ChannelModel } from 'amqplib';
import { type ConsumeContext, consumeOne, type Handler } from './delivery/consume-one.js';
import { type RunningSubscription, startSubscription } from './delivery/subscription.js';
import { TimeLimits } from './delivery/time-limits.js';
import { logTo } from './events.js';
import {
  type ConsumerOptions,
  parseConsumerOptions,
  parseSubscribeOptions,
  type SubscribeOptions,
} from './options.js';
import { keepConnection, unreachable } from './rabbit/connection.js';
import type { KeptOpen } from './rabbit/keep-open.js';
import { createPublisher, type Publisher } from './rabbit/publisher.js';
import { declareTopology } from './rabbit/topology.js';
import { createReceipts, type Receipts } from './settle/receipts.js';
import { tracedHandler } from './tracing.js';
import { withinMs } from './within-ms.js';

export interface Subscription {
  /**
   * Takes no more messages, waits for the handlers that run (at most `drainTimeoutMs`), and leaves
   * the queue in place: it goes on collecting for the next instance. May be called again.
   */
  close(): Promise<void>;
}

export interface Consumer {
  /**
   * Consumes a topic for a consumer group; resolves when deliveries flow. From then on lost
   * connections, channels and queues heal by themselves.
   *
   * The message is acknowledged after `handler` has resolved. When it throws or takes too long, the
   * message comes again after the next of `retryDelaysMs`, and at last goes to the dead-letter
   * queue with the cause; after a `PermanentError` it goes there at once. Delivery is at least
   * once: see `once`.
   *
   * @throws EscrowError INVALID_NAME, UNKNOWN_FIELD, INVALID_CONFIGURATION (also when the queues
   *   exist with other properties), BROKER_UNREACHABLE, SHUTTING_DOWN after `close`
   */
  subscribe<Data = unknown>(
    options: SubscribeOptions,
    handler: Handler<Data>,
  ): Promise<Subscription>;
  /** Closes every subscription, sends the receipts that wait, and closes the connections. */
  close(): Promise<void>;
}

/** What all subscriptions share; opened by the first one. */
interface Shared {
  consuming: KeptOpen<ChannelModel>;
  publishing: KeptOpen<ChannelModel>;
  publisher: Publisher;
  receipts: Receipts;
}

/** Receipts are best effort: a RabbitMQ that takes none does not hold up the end for long. */
const RECEIPTS_FLUSH_TIMEOUT_MS = 5_000;

/**
 * Makes a consumer. Nothing is connected before the first `subscribe`.
 *
 * @throws EscrowError INVALID_CONFIGURATION or UNKNOWN_FIELD
 * @example
 * const consumer = createConsumer({ rabbitmq: 'amqp://localhost' });
 * const options = { topic: 'user', group: 'phone-index', routingKeys: ['registered'] };
 * await consumer.subscribe<{ userId: number }>(options, async (message) => {
 *   await once(pool, message, async (tx) => {
 *     await tx.execute('insert into phones (user_id) values (?)', [message.data.userId]);
 *   });
 * });
 * process.on('SIGTERM', () => void consumer.close());
 */
export function createConsumer(options: ConsumerOptions): Consumer {
  const { rabbitmq, logger, startTimeoutMs, tracing } = parseConsumerOptions(options);
  const log = logTo(logger);
  const subscriptions = new Set<RunningSubscription>();
  let shared: Shared | undefined;
  let closed: Promise<void> | undefined;

  function open(): Shared {
    const consuming = keepConnection(rabbitmq, 'consuming', log);
    const publishing = keepConnection(rabbitmq, 'publishing', log);
    const publisher = createPublisher(publishing, log);
    return { consuming, publishing, publisher, receipts: createReceipts(publisher, log) };
  }

  /** The shared parts, connected. After a failure the next call starts afresh. */
  async function connected(): Promise<Shared> {
    shared ??= open();
    const mine = shared;
    try {
      await Promise.all([mine.consuming.get(startTimeoutMs), mine.publishing.get(startTimeoutMs)]);
      return mine;
    } catch (error) {
      if (closed !== undefined) throw isClosed();
      if (shared === mine && subscriptions.size === 0) {
        shared = undefined;
        await disconnect(mine);
      }
      throw unreachable(error, rabbitmq);
    }
  }

  async function closeAll(): Promise<void> {
    await Promise.all([...subscriptions].map((subscription) => subscription.close()));
    if (shared === undefined) return;
    await withinMs(shared.receipts.idle(), RECEIPTS_FLUSH_TIMEOUT_MS);
    await disconnect(shared);
  }

  return {
    async subscribe(subscribeOptions, handler) {
      const settings = parseSubscribeOptions(subscribeOptions);
      if (closed !== undefined) throw isClosed();
      const { consuming, publisher, receipts } = await connected();
      if (closed !== undefined) throw isClosed();
      const { topic, group, concurrency, drainTimeoutMs } = settings;
      const closing = new AbortController();
      const context: ConsumeContext = {
        settings,
        handler: tracedHandler(handler, tracing),
        limits: new TimeLimits(settings.handlerTimeoutMs),
        publisher,
        receipts,
        log,
        closing: closing.signal,
        now: Date.now,
      };
      const subscription = startSubscription({
        topic,
        group,
        queue: queueName(topic, group),
        prefetch: concurrency,
        drainTimeoutMs,
        declare: (channel) => declareTopology(channel, settings),
        take: (delivery) => consumeOne(delivery, context),
        closing,
        connection: consuming,
        log,
      });
      subscriptions.add(subscription);
      const close = async () => {
        await subscription.close();
        subscriptions.delete(subscription);
      };
      try {
        await subscription.started(startTimeoutMs);
      } catch (error) {
        await close();
        if (isEscrowError(error)) throw error;
        throw closed === undefined ? unreachable(error, rabbitmq) : isClosed();
      }
      return { close };
    },
    close() {
      closed ??= closeAll();
      return closed;
    },
  };
}

async function disconnect({ consuming, publishing, publisher }: Shared): Promise<void> {
  await publisher.close();
  await Promise.all([consuming.close(), publishing.close()]);
}

function isClosed(): EscrowError {
  return new EscrowError('SHUTTING_DOWN', 'this consumer is closed: create another one');
}

import { EscrowError, isEscrowError, requireFunction } from '@escrowmq/protocol';
import type { ChannelModel } from 'amqplib';
import { type Announced, announcedEphemeral, announcedGroup } from './announce/announced.js';
import { type Announcer, createAnnouncer } from './announce/announcer.js';
import { subscribeToBatches } from './batch/consume-batches.js';
import { type BatchHandler, type BatchOptions, parseBatchOptions } from './batch/options.js';
import type { Consumer, Subscription } from './consumer-api.js';
import { logTo } from './default-log.js';
import { type Handler, subscribeToEach } from './delivery/consume-one.js';
import type { RunningSubscription, Shared } from './delivery/subscription.js';
import {
  type EphemeralHandler,
  type EphemeralOptions,
  parseEphemeralOptions,
} from './ephemeral/options.js';
import { subscribeEphemeral } from './ephemeral/subscription.js';
import {
  type ConsumerOptions,
  parseConsumerOptions,
  parseSubscribeOptions,
  type SubscribeOptions,
} from './options.js';
import { subscribeInOrder } from './ordered/subscribe-in-order.js';
import { keepConnection, unreachable } from './rabbit/connection.js';
import type { KeptOpen } from './rabbit/keep-open.js';
import { createPublisher } from './rabbit/publisher.js';
import { createReceipts } from './settle/receipts.js';
import type { Given } from './typed/named-topic.js';
import { typedHandler } from './typed/typed-handler.js';
import { withinMs } from './within-ms.js';

/** What all subscriptions share, and the connection behind the publisher; opened by the first. */
interface Opened {
  shared: Shared;
  announcer: Announcer;
  consuming: KeptOpen<ChannelModel>;
  publishing: KeptOpen<ChannelModel>;
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
  let opened: Opened | undefined;
  let closed: Promise<void> | undefined;

  function open(): Opened {
    const consuming = keepConnection(rabbitmq, 'consuming', log);
    const publishing = keepConnection(rabbitmq, 'publishing', log);
    const publisher = createPublisher(publishing, log);
    const receipts = createReceipts(publisher, log);
    const shared = { connection: consuming, publisher, receipts, log, tracing };
    const announcer = createAnnouncer(publishing, log);
    return { shared, announcer, consuming, publishing };
  }

  /** The shared parts, connected. After a failure the next call starts afresh. */
  async function connected(): Promise<Opened> {
    opened ??= open();
    const mine = opened;
    try {
      await Promise.all([mine.consuming.get(startTimeoutMs), mine.publishing.get(startTimeoutMs)]);
      return mine;
    } catch (error) {
      if (closed !== undefined) throw isClosed();
      if (opened === mine && subscriptions.size === 0) {
        opened = undefined;
        await disconnect(mine);
      }
      throw unreachable(error, rabbitmq);
    }
  }

  /** Every kind of subscription begins and ends this way. */
  async function run(
    announced: Announced,
    start: (shared: Shared) => RunningSubscription,
  ): Promise<Subscription> {
    if (closed !== undefined) throw isClosed();
    const { shared, announcer } = await connected();
    if (closed !== undefined) throw isClosed();
    const subscription = start(shared);
    subscriptions.add(subscription);
    let unannounce = () => {};
    const close = async () => {
      await subscription.close();
      unannounce();
      subscriptions.delete(subscription);
    };
    try {
      await subscription.started(startTimeoutMs);
    } catch (error) {
      await close();
      if (isEscrowError(error)) throw error;
      throw closed === undefined ? unreachable(error, rabbitmq) : isClosed();
    }
    unannounce = announcer.add(announced);
    return { pause: () => subscription.pause(), resume: () => subscription.resume(), close };
  }

  const all = async (what: 'pause' | 'resume' | 'close') => {
    await Promise.all([...subscriptions].map((subscription) => subscription[what]()));
  };

  async function closeAll(): Promise<void> {
    await all('close');
    if (opened === undefined) return;
    await withinMs(opened.shared.receipts.idle(), RECEIPTS_FLUSH_TIMEOUT_MS);
    await disconnect(opened);
  }

  return {
    async subscribe(
      subscribeOptions: Given<SubscribeOptions>,
      handler: (message: never) => unknown,
    ) {
      const settings = parseSubscribeOptions(subscribeOptions);
      requireFunction(handler, 'handler', 'subscribe');
      const { ordered, places } = settings;
      const typed = typedHandler(handler as Handler<never>, places);
      return run(announcedGroup(settings, 'each'), (shared) =>
        ordered === undefined
          ? subscribeToEach(settings, typed, shared)
          : subscribeInOrder({ ...settings, ordered }, typed, shared),
      );
    },
    async subscribeBatch(
      batchOptions: Given<BatchOptions>,
      handler: (messages: never) => ReturnType<BatchHandler<never>>,
    ) {
      const settings = parseBatchOptions(batchOptions);
      requireFunction(handler, 'handler', 'subscribeBatch');
      return run(announcedGroup(settings.subscribe, 'batch'), (shared) =>
        subscribeToBatches(settings, handler as BatchHandler<never>, shared),
      );
    },
    async subscribeEphemeral(
      ephemeralOptions: Given<EphemeralOptions>,
      handler: (message: never) => unknown,
    ) {
      const settings = parseEphemeralOptions(ephemeralOptions);
      requireFunction(handler, 'handler', 'subscribeEphemeral');
      return run(announcedEphemeral(settings), (shared) =>
        subscribeEphemeral(
          settings,
          typedHandler(handler as EphemeralHandler<never>, settings.places),
          shared,
        ),
      );
    },
    pause: () => all('pause'),
    resume: () => all('resume'),
    close() {
      closed ??= closeAll();
      return closed;
    },
  };
}

async function disconnect({ shared, announcer, consuming, publishing }: Opened): Promise<void> {
  await Promise.all([announcer.close(), shared.publisher.close()]);
  await Promise.all([consuming.close(), publishing.close()]);
}

function isClosed(): EscrowError {
  return new EscrowError('SHUTTING_DOWN', 'this consumer is closed: create another one');
}

import { isEscrowError, queueName } from '@escrowmq/protocol';
import { AskedKeys } from '../delivery/asked-keys.js';
import { type ConsumeContext, consumeOne, type Handler } from '../delivery/consume-one.js';
import { orderingKeyOf } from '../delivery/message.js';
import {
  type RunningSubscription,
  type Shared,
  startSubscription,
} from '../delivery/subscription.js';
import { TimeLimits } from '../delivery/time-limits.js';
import type { ConsumerEvent } from '../events.js';
import type { SubscribeSettings } from '../options.js';
import { declareTopic } from '../rabbit/topic.js';
import { retryPolicy } from '../settle/spread.js';
import { tracedHandler } from '../tracing.js';
import { consumeInOrder } from './consume-in-order.js';
import { Lanes } from './lanes.js';
import type { OrderedSettings } from './options.js';
import { Semaphore } from './semaphore.js';
import {
  declareOrderedTopology,
  declarePartition,
  type OrderedTopology,
  PARTITION_PREFETCH,
  partitionQueueOf,
} from './topology.js';

export type OrderedSubscribeSettings = SubscribeSettings & { ordered: OrderedSettings };

/** Longer than one reconnect takes; the partitions begin without being waited for then. */
const RESUME_TIMEOUT_MS = 10_000;

/**
 * Calls the handler with one message of an ordering key at a time, in the order of their sequence.
 * Each partition is a subscription of its own, on its own channel; the lanes are common to all and
 * outlive their channels, so that what comes again after a loss waits for what still runs.
 */
export function subscribeInOrder(
  settings: OrderedSubscribeSettings,
  handler: Handler<never>,
  shared: Shared,
): RunningSubscription {
  const { topic, group, concurrency } = settings;
  const parts: Parts = {
    settings,
    shared,
    topology: { ...settings, partitions: settings.ordered.partitions },
    handler: tracedHandler(handler, shared),
    limits: new TimeLimits(settings.handlerTimeoutMs),
    lanes: new Lanes(new Semaphore(concurrency)),
    asked: new AskedKeys(settings, shared.log),
  };
  // It declares everything, so the partitions begin when it has begun.
  const withoutKey = startWithoutKey(parts);
  let partitions: RunningSubscription[] | undefined;
  let isPaused = false;
  let isClosed = false;
  let changes = Promise.resolve();

  /** Makes the partitions what they should be, after what is being changed already. */
  function change(timeoutMs: number): Promise<void> {
    const changed = changes.then(async () => {
      if (isPaused || isClosed) {
        const closing = partitions ?? [];
        partitions = undefined;
        await Promise.all(closing.map((partition) => partition.close()));
      } else {
        partitions ??= startPartitions(parts);
        await Promise.all(partitions.map((partition) => partition.started(timeoutMs)));
      }
    });
    changes = changed.catch(() => undefined);
    return changed;
  }

  return {
    async started(timeoutMs) {
      await withoutKey.started(timeoutMs);
      await change(timeoutMs);
      if (isClosed) throw new Error(`the subscription of ${group} to ${topic} is closed`);
    },
    async pause() {
      isPaused = true;
      await Promise.all([withoutKey.pause(), change(RESUME_TIMEOUT_MS)]);
    },
    async resume() {
      isPaused = false;
      const resumed = change(RESUME_TIMEOUT_MS).catch((error) => {
        // RabbitMQ is away: they go on trying by themselves.
        if (isEscrowError(error)) throw error;
      });
      await Promise.all([withoutKey.resume(), resumed]);
    },
    async close() {
      isClosed = true;
      await Promise.all([withoutKey.close(), change(RESUME_TIMEOUT_MS)]);
    },
  };
}

interface Parts {
  settings: OrderedSubscribeSettings;
  shared: Shared;
  topology: OrderedTopology;
  handler: Handler<never>;
  limits: TimeLimits;
  lanes: Lanes;
  asked: AskedKeys;
}

/** Messages without an ordering key go the usual way, through the group's usual queues. */
function startWithoutKey(parts: Parts): RunningSubscription {
  const { settings, shared, topology } = parts;
  const { topic, group, concurrency, drainTimeoutMs } = settings;
  const closing = new AbortController();
  const context = contextOf(parts, closing.signal);
  return startSubscription({
    topic,
    group,
    queue: queueName(topic, group),
    prefetch: concurrency,
    drainTimeoutMs,
    async declare(channel, model) {
      await declareTopic(model, topic);
      await declareOrderedTopology(channel, topology);
    },
    take: (delivery) => consumeOne(delivery, context),
    closing,
    connection: shared.connection,
    log: shared.log,
  });
}

function startPartitions(parts: Parts): RunningSubscription[] {
  const { settings, shared, topology, lanes } = parts;
  const { topic, group, drainTimeoutMs } = settings;
  return Array.from({ length: topology.partitions }, (_, partition) => {
    const closing = new AbortController();
    const context = contextOf(parts, closing.signal);
    return startSubscription({
      topic,
      group,
      queue: partitionQueueOf(topology, partition).name,
      prefetch: PARTITION_PREFETCH,
      drainTimeoutMs,
      declare: (channel) => declarePartition(channel, topology, partition),
      take(delivery) {
        const key = orderingKeyOf(delivery.original);
        lanes.add(key, (permit) => consumeInOrder(delivery, permit, context));
      },
      closing,
      endsWithItsChannel: true,
      connection: shared.connection,
      log: (event) => shared.log(ofPartition(event, partition)),
    });
  });
}

function contextOf(parts: Parts, closing: AbortSignal): ConsumeContext {
  const { settings, handler, limits, asked } = parts;
  const { publisher, receipts, log } = parts.shared;
  const ways = { policy: retryPolicy(settings), publisher, receipts, asked };
  return { settings, handler, limits, ...ways, log, closing, now: Date.now };
}

function ofPartition(event: ConsumerEvent, partition: number): ConsumerEvent {
  switch (event.event) {
    case 'consuming':
    case 'consumingLost':
    case 'drainTimedOut':
      return { ...event, partition };
    default:
      return event;
  }
}

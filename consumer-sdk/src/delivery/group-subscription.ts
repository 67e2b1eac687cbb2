import { queueName } from '@escrowmq/protocol';
import type { SubscribeSettings } from '../options.js';
import { declareTopic } from '../rabbit/topic.js';
import { declareTopology } from '../rabbit/topology.js';
import type { RetryPolicy } from '../settle/next-step.js';
import type { SettleContext } from '../settle/settle.js';
import { retryPolicy } from '../settle/spread.js';
import { AskedKeys } from './asked-keys.js';
import type { Delivery } from './delivery.js';
import { type RunningSubscription, type Shared, startSubscription } from './subscription.js';
import { TimeLimits } from './time-limits.js';

/** What it takes to handle and settle the deliveries of a group's queue. */
export interface GroupContext extends SettleContext {
  settings: SubscribeSettings;
  limits: TimeLimits;
  policy: RetryPolicy;
  asked: AskedKeys;
}

/**
 * Consumes the usual queue of a group, the one without order.
 * @param taking makes what each delivery is given to
 */
export function subscribeGroup(
  settings: SubscribeSettings,
  shared: Shared,
  taking: (context: GroupContext) => (delivery: Delivery) => void,
): RunningSubscription {
  const { topic, group, concurrency, drainTimeoutMs } = settings;
  const { connection, publisher, receipts, log } = shared;
  const closing = new AbortController();
  const context: GroupContext = {
    settings,
    limits: new TimeLimits(settings.handlerTimeoutMs),
    policy: retryPolicy(settings),
    asked: new AskedKeys(settings, log),
    publisher,
    receipts,
    log,
    closing: closing.signal,
    now: Date.now,
  };
  return startSubscription({
    topic,
    group,
    queue: queueName(topic, group),
    prefetch: concurrency,
    drainTimeoutMs,
    async declare(channel, model) {
      await declareTopic(model, topic);
      await declareTopology(channel, settings);
    },
    take: taking(context),
    closing,
    connection,
    log,
  });
}

import { queueName } from '@escrowmq/protocol';
import { causeOf } from '../cause.js';
import type { SubscribeSettings } from '../options.js';
import { declareTopology } from '../rabbit/topology.js';
import { afterError, type RetryPolicy } from '../settle/next-step.js';
import {
  type Failure,
  type SettleContext,
  settleConsumed,
  settleFailed,
} from '../settle/settle.js';
import { retryPolicy } from '../settle/spread.js';
import { tracedHandler } from '../tracing.js';
import type { Delivery } from './delivery.js';
import { examine } from './examine.js';
import { callHandler } from './handler-call.js';
import { type Envelope, type Message, ReceivedMessage } from './message.js';
import { Stop } from './stop.js';
import { type RunningSubscription, type Shared, startSubscription } from './subscription.js';
import { TimeLimits } from './time-limits.js';

export type Handler<Data> = (message: Message<Data>) => unknown;

export interface ConsumeContext extends SettleContext {
  settings: SubscribeSettings;
  handler: Handler<never>;
  limits: TimeLimits;
  policy: RetryPolicy;
}

/** Calls the handler with one message at a time, as many of them side by side as are out. */
export function subscribeToEach(
  settings: SubscribeSettings,
  handler: Handler<never>,
  shared: Shared,
): RunningSubscription {
  const { topic, group, concurrency, drainTimeoutMs } = settings;
  const { connection, publisher, receipts, log, tracing } = shared;
  const closing = new AbortController();
  const context: ConsumeContext = {
    settings,
    handler: tracedHandler(handler, tracing),
    limits: new TimeLimits(settings.handlerTimeoutMs),
    policy: retryPolicy(settings),
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
    declare: (channel) => declareTopology(channel, settings),
    take: (delivery) => consumeOne(delivery, context),
    closing,
    connection,
    log,
  });
}

/**
 * One delivery from RabbitMQ, from arrival to its settlement: examined, handled, settled. What
 * succeeds goes this way without a promise of ours.
 */
export function consumeOne(delivery: Delivery, context: ConsumeContext): void {
  const { original, abandoned } = delivery;
  const { handler, limits } = context;
  const { group } = context.settings;
  const examined = examine(original, group, context.policy);
  if (examined.kind === 'refused') {
    void settleFailed(delivery, examined, context);
    return;
  }
  const { envelope, data } = examined;
  const stop = new Stop();
  const message = new ReceivedMessage(original, { envelope, data, group, stop });
  callHandler({
    call: () => handler(message),
    stop,
    abandoned,
    limits,
    ended(end) {
      if ('error' in end) {
        void settleFailed(delivery, failureOf(end.error, envelope, context), context);
      } else settleConsumed(delivery, envelope, context);
    },
  });
}

function failureOf(error: unknown, envelope: Envelope, { policy }: ConsumeContext): Failure {
  const { attempts, postponed } = envelope;
  const next = afterError(error, { attempts, postponed }, policy);
  return { next, cause: causeOf(error), envelope };
}

import { causedBy } from '../cause.js';
import type { SubscribeSettings } from '../options.js';
import { afterError } from '../settle/next-step.js';
import { type Failure, settleConsumed, settleFailed } from '../settle/settle.js';
import { tracedHandler } from '../tracing.js';
import type { Delivery } from './delivery.js';
import { examine } from './examine.js';
import { type GroupContext, subscribeGroup } from './group-subscription.js';
import { callHandler } from './handler-call.js';
import { type Envelope, type Message, ReceivedMessage } from './message.js';
import { newCall } from './new-call.js';
import type { RunningSubscription, Shared } from './subscription.js';

/** Handles one message. Resolves: it is consumed. Throws or takes too long: it has failed. */
export type Handler<Data> = (message: Message<Data>) => unknown;

export interface ConsumeContext extends GroupContext {
  handler: Handler<never>;
}

/** Calls the handler with one message at a time, as many of them side by side as are out. */
export function subscribeToEach(
  settings: SubscribeSettings,
  handler: Handler<never>,
  shared: Shared,
): RunningSubscription {
  return subscribeGroup(settings, shared, (group) => {
    const context: ConsumeContext = { ...group, handler: tracedHandler(handler, shared) };
    return (delivery) => consumeOne(delivery, context);
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
  context.asked.look(envelope);
  const { stop, work } = newCall(context.settings, [envelope.id], context.log);
  const message = new ReceivedMessage(original, { envelope, data, group, stop, work });
  callHandler({
    call: () => handler(message),
    stop,
    work,
    abandoned,
    limits,
    ended(end) {
      if ('error' in end) {
        void settleFailed(delivery, failureOf(end.error, envelope, context), context);
      } else settleConsumed(delivery, envelope, context);
    },
  });
}

/** What becomes of a message after an error. */
export function failureOf(
  error: unknown,
  envelope: Envelope,
  { policy }: Pick<GroupContext, 'policy'>,
): Failure {
  const { attempts, postponed } = envelope;
  const next = afterError(error, { attempts, postponed }, policy);
  return { next, ...causedBy(error), envelope };
}

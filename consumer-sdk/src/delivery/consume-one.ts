import { causeOf } from '../cause.js';
import type { SubscribeSettings } from '../options.js';
import { afterFailure } from '../settle/next-step.js';
import { isPermanentError } from '../settle/permanent-error.js';
import {
  type Failure,
  type SettleContext,
  settleConsumed,
  settleFailed,
} from '../settle/settle.js';
import type { Delivery } from './delivery.js';
import { examine } from './examine.js';
import { callHandler } from './handler-call.js';
import { type Envelope, type Message, ReceivedMessage } from './message.js';
import { Stop } from './stop.js';
import type { TimeLimits } from './time-limits.js';

export type Handler<Data> = (message: Message<Data>) => unknown;

export interface ConsumeContext extends SettleContext {
  settings: SubscribeSettings;
  handler: Handler<never>;
  limits: TimeLimits;
}

/**
 * One delivery from RabbitMQ, from arrival to its settlement: examined, handled, settled. What
 * succeeds goes this way without a promise of ours.
 */
export function consumeOne(delivery: Delivery, context: ConsumeContext): void {
  const { original, abandoned } = delivery;
  const { handler, limits } = context;
  const { group } = context.settings;
  const examined = examine(original, group);
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

function failureOf(error: unknown, envelope: Envelope, { settings }: ConsumeContext): Failure {
  const next = afterFailure(envelope.attempts, isPermanentError(error), settings.retryDelaysMs);
  return { next, cause: causeOf(error), envelope };
}

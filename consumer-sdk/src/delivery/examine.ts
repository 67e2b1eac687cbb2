import type { ConsumeMessage } from 'amqplib';
import { REDELIVERIES_MAX } from '../rabbit/topology.js';
import type { DeadReason } from '../settle/next-step.js';
import type { Failure } from '../settle/settle.js';
import { attemptsOf, deliveryCountOf, type Envelope, parseDelivery } from './message.js';

/** A delivery that a handler may see, or why none will. */
export type Examined =
  | { kind: 'message'; envelope: Envelope; data: unknown }
  | ({ kind: 'refused' } & Failure);

/** Decides, before any handler is called, what is not for one: see `DeadReason`. */
export function examine(original: ConsumeMessage, group: string): Examined {
  const parsed = parseDelivery(original, group);
  const envelope = parsed.kind === 'foreign' ? undefined : parsed.envelope;
  const refused = (reason: DeadReason, cause: string): Examined => {
    const attempts = envelope?.attempts ?? attemptsOf(original.properties.headers ?? {}, group);
    return {
      kind: 'refused',
      next: { step: 'deadLetter', reason, attempts },
      cause,
      envelope,
    };
  };
  if (parsed.kind !== 'message') return refused(parsed.kind, parsed.cause);
  const deliveries = deliveryCountOf(original);
  if (deliveries >= REDELIVERIES_MAX) {
    return refused('redelivered', `delivered ${deliveries} times before and never settled`);
  }
  return parsed;
}

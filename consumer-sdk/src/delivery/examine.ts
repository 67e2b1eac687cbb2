import type { ConsumeMessage } from 'amqplib';
import { REDELIVERIES_MAX } from '../rabbit/topology.js';
import { beforeItsTime, type DeadReason, type RetryPolicy } from '../settle/next-step.js';
import type { Failure } from '../settle/settle.js';
import { type Envelope, parseDelivery } from './message.js';
import { deliveryCountOf, triesOf } from './tries.js';

/** A delivery that a handler may see, or why none will now. */
export type Examined =
  | { kind: 'message'; envelope: Envelope; data: unknown }
  | ({ kind: 'refused' } & Failure);

/**
 * Decides, before any handler is called, what is not for one: see `DeadReason`, and what was
 * postponed and has not waited long enough (without a policy nothing is).
 */
export function examine(original: ConsumeMessage, group: string, policy?: RetryPolicy): Examined {
  const parsed = parseDelivery(original, group);
  const envelope = parsed.kind === 'foreign' ? undefined : parsed.envelope;
  const dead = (reason: DeadReason, cause: string): Examined => {
    const { attempts, postponed } = envelope ?? triesOf(original.properties.headers ?? {}, group);
    return {
      kind: 'refused',
      next: { step: 'deadLetter', reason, attempts, postponed },
      cause,
      envelope,
    };
  };
  if (parsed.kind !== 'message') return dead(parsed.kind, parsed.cause);
  const deliveries = deliveryCountOf(original);
  if (deliveries >= REDELIVERIES_MAX) {
    return dead('redelivered', `delivered ${deliveries} times before and never settled`);
  }
  const { notBefore, attempts, postponed } = parsed.envelope;
  if (notBefore === undefined || policy === undefined) return parsed;
  const next = beforeItsTime(notBefore, { attempts, postponed }, policy);
  return next === undefined ? parsed : { kind: 'refused', next, cause: '', envelope };
}

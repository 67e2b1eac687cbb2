import { deadLetterQueueName, HEADERS, queueName } from '@escrowmq/protocol';
import type { ConsumeMessage } from 'amqplib';
import type { Tries } from '../settle/next-step.js';

/*
 * What the headers say of the tries of one group.
 *
 * A dead letter that goes back to its group's queue, by whichever tool, begins anew: what is said of
 * its life before does not count. It is known by what only a dead letter has: the reason that the
 * SDK gave it, or a death in a queue of the group that RabbitMQ has noted (`x-death`). Nobody has to
 * take headers away, and whoever moves messages as they are does it right.
 *
 * Its first copy to a retry queue drops both and says instead since when it is back.
 */

type Headers = Readonly<Record<string, unknown>>;

/** Whether the headers are those of a dead letter of this group. */
export function isDeadLetter(headers: Headers, group: string): boolean {
  const isOurs = headers[HEADERS.consumerGroup] === group;
  return (isOurs && headers[HEADERS.deadReason] !== undefined) || hasDied(headers, group);
}

/** Whether it has been a dead letter of this group, and is back; also at its later attempts. */
export function isReturned(headers: Headers, group: string): boolean {
  const isOurs = headers[HEADERS.consumerGroup] === group;
  return isDeadLetter(headers, group) || (isOurs && headers[HEADERS.returnedAt] !== undefined);
}

/**
 * What this group has tried so far; what is not a count is none. A dead letter that an
 * operator published to the topic again carries the attempts of the group that gave up on it.
 */
export function triesOf(headers: Headers, group: string): Tries {
  if (headers[HEADERS.consumerGroup] !== group || isDeadLetter(headers, group)) return NO_TRIES;
  return {
    attempts: countIn(headers[HEADERS.attempts]),
    postponed: countIn(headers[HEADERS.postponed]),
  };
}

const NO_TRIES: Tries = { attempts: 0, postponed: 0 };

const countIn = (value: unknown): number =>
  typeof value === 'number' && Number.isSafeInteger(value) && value > 0 ? value : 0;

/** Another group's is not ours, and neither is what is no time. */
export function notBeforeOf(headers: Headers, group: string): number | undefined {
  const notBefore = headers[HEADERS.notBefore];
  if (typeof notBefore !== 'number' || headers[HEADERS.consumerGroup] !== group) return undefined;
  return isDeadLetter(headers, group) ? undefined : notBefore;
}

/**
 * In the group's queue, in one of its partitions or among its dead letters: RabbitMQ's own delivery
 * limit, a client that rejects, a policy. To expire in a retry queue is no death.
 */
function hasDied(headers: Headers, group: string): boolean {
  const deaths = headers['x-death'];
  const topic = headers[HEADERS.topic];
  if (!Array.isArray(deaths) || typeof topic !== 'string') return false;
  const main = queueName(topic, group);
  return deaths.some((death: unknown) => {
    const queue = typeof death === 'object' && death !== null && 'queue' in death && death.queue;
    if (typeof queue !== 'string') return false;
    if (queue === main || queue === deadLetterQueueName(topic, group)) return true;
    return queue.startsWith(main) && /^:p\d+of\d+$/.test(queue.slice(main.length));
  });
}

/**
 * Deliveries that RabbitMQ counts in a quorum queue: absent at the first. What is delivered for the
 * first time may still carry the count of a queue it was moved out of.
 */
export function deliveryCountOf(delivery: ConsumeMessage): number {
  return rabbitCount(delivery, 'x-delivery-count');
}

/**
 * How often it has come back, for whatever reason: from RabbitMQ 4.3 on, what its consumer puts back
 * is no failed delivery any more, and only this counts it.
 */
export function returnCountOf(delivery: ConsumeMessage): number {
  return Math.max(deliveryCountOf(delivery), rabbitCount(delivery, 'x-acquired-count'));
}

function rabbitCount(delivery: ConsumeMessage, header: string): number {
  if (!delivery.fields.redelivered) return 0;
  const count: unknown = delivery.properties.headers?.[header];
  return typeof count === 'number' ? count : 0;
}

import { deadLetterQueueName, EscrowError, queueName, retryQueueName } from '@escrowmq/protocol';
import type { Channel } from 'amqplib';

/**
 * The queues of one consumer group on one topic. Everything is durable and quorum, and valid on
 * RabbitMQ 3.10 to 4.x.
 *
 *   exchange topic ──routing keys──► queue ──(RabbitMQ's delivery limit)──► dead-letter queue
 *                                      ▲ │ (a copy by the SDK)                 ▲
 *                                      │ ├──────────► retry queue per delay    │
 *                                      │ │                  │ (expired)        │
 *                                      └─┼──────────────────┘                  │
 *                                        └──────── (a copy by the SDK) ────────┘
 *
 * Whatever RabbitMQ itself moves, it moves `at-least-once`: it keeps the message until the target
 * has confirmed it. Measured without: 100 of 100 lost when the target queue was missing. That
 * strategy needs `overflow` to be `reject-publish`; without a length limit nothing is rejected.
 */
export interface GroupTopology {
  topic: string;
  group: string;
  routingKeys: readonly string[];
  retryDelaysMs: readonly number[];
  /** Of an ordered group, whose keyed messages have queues of their own: ordered/topology.ts. */
  partitions?: number;
}

/**
 * Deliveries after which RabbitMQ takes a message away from its consumers. 4.x would say 20 and
 * 3.10 never, so it is explicit. A net only, and wide, because every lost connection counts for
 * every message it had out: the SDK itself gives up earlier (`REDELIVERIES_MAX`), with a cause.
 */
export const DELIVERY_LIMIT = 100;

/**
 * Of the queue of an ordered group, and different for this purpose only: RabbitMQ refuses to declare
 * a queue again with another limit. So a group does not become an ordered one, or cease to be one,
 * while bindings and messages of its other life are still there.
 */
const ORDERED_GROUP_DELIVERY_LIMIT = DELIVERY_LIMIT + 1;

/**
 * The SDK makes a dead letter of a message that came back this often without being settled: it
 * probably kills its consumer each time. Half of RabbitMQ's own limit, so that the SDK comes first
 * and can add the cause and the `failed` receipt.
 */
export const REDELIVERIES_MAX = 50;

/**
 * On 4.x the default of 20 would drop a dead letter for good that was looked at and put back 20
 * times. No number means "never" on every version, so it is the largest AMQP integer.
 */
const DEAD_LETTER_DELIVERY_LIMIT = 2_147_483_647;

export const QUORUM = { 'x-queue-type': 'quorum' };

/** Dead-letters through the default exchange, which every queue is bound to by its own name. */
export function handOnTo(queue: string) {
  return {
    'x-dead-letter-exchange': '',
    'x-dead-letter-routing-key': queue,
    'x-dead-letter-strategy': 'at-least-once',
    'x-overflow': 'reject-publish',
  };
}

export interface QueueDeclaration {
  name: string;
  arguments: Record<string, string | number | boolean>;
}

/** Every queue of the group; targets come before those that hand on. */
export function queuesOf(topology: GroupTopology): QueueDeclaration[] {
  const { topic, group, retryDelaysMs, partitions } = topology;
  const main = queueName(topic, group);
  const dead = deadLetterQueueName(topic, group);
  const limit = partitions === undefined ? DELIVERY_LIMIT : ORDERED_GROUP_DELIVERY_LIMIT;
  return [
    { name: dead, arguments: { ...QUORUM, 'x-delivery-limit': DEAD_LETTER_DELIVERY_LIMIT } },
    {
      name: main,
      arguments: { ...QUORUM, 'x-delivery-limit': limit, ...handOnTo(dead) },
    },
    ...[...new Set(retryDelaysMs)].map((delayMs) => ({
      name: retryQueueName(topic, group, delayMs),
      arguments: { ...QUORUM, 'x-message-ttl': delayMs, ...handOnTo(main) },
    })),
  ];
}

/**
 * Declares what is missing of a topic's group; what is there already costs one round trip each. Bindings come last,
 * so that no message arrives before it could be retried or put away.
 * @throws EscrowError INVALID_CONFIGURATION when something exists with other properties
 */
export async function declareTopology(channel: Channel, topology: GroupTopology): Promise<void> {
  const { topic, group, routingKeys } = topology;
  for (const queue of queuesOf(topology)) await declareQueue(channel, queue);
  const main = queueName(topic, group);
  for (const routingKey of routingKeys) {
    await named(`the binding of ${main}`, channel.bindQueue(main, topic, routingKey));
  }
}

export async function declareQueue(channel: Channel, queue: QueueDeclaration): Promise<void> {
  const options = { durable: true, arguments: queue.arguments };
  await named(`queue ${queue.name}`, channel.assertQueue(queue.name, options));
}

/** AMQP reply codes that say what to change, not that something is down. */
const PRECONDITION_FAILED = 406;
export const ACCESS_REFUSED = 403;

/** The AMQP reply code of an error of the client library. */
export function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}

/**
 * @param what is declared, for the error
 * @throws EscrowError INVALID_CONFIGURATION for what does not pass by itself
 */
export async function named<T>(what: string, declared: Promise<T>): Promise<T> {
  try {
    return await declared;
  } catch (error) {
    const code = codeOf(error);
    const said = error instanceof Error ? error.message : String(error);
    if (code === PRECONDITION_FAILED) {
      throw new EscrowError(
        'INVALID_CONFIGURATION',
        `${what} exists in RabbitMQ with other properties than this version declares (${said}). ` +
          'RabbitMQ can not change them: stop its users, move its messages away, delete it, and ' +
          'subscribe again',
        { cause: error },
      );
    }
    if (code === ACCESS_REFUSED) {
      throw new EscrowError(
        'INVALID_CONFIGURATION',
        `the RabbitMQ user may not declare ${what} (${said}): give it the configure, write and ` +
          'read permissions on it',
        { cause: error },
      );
    }
    throw error;
  }
}

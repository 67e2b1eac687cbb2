import {
  deadLetterQueueName,
  EscrowError,
  HEADERS,
  isEscrowError,
  ORDERING_SLOTS,
  orderedExchangeName,
  partitionOf,
  partitionQueueName,
  queueName,
  unorderedExchangeName,
} from '@escrowmq/protocol';
import type { Channel } from 'amqplib';
import {
  DELIVERY_LIMIT,
  declareQueue,
  type GroupTopology,
  handOnTo,
  named,
  QUORUM,
  type QueueDeclaration,
  queuesOf,
} from '../rabbit/topology.js';

/*
 * The queues of one ordered consumer group on one topic, without any plugin:
 *
 *   exchange topic ──routing keys──► headers exchange ──slots of partition i──► partition queue i
 *                                      │ (no slot: alternate exchange)
 *                                      └──► fanout exchange ──► queue, with its retry queues
 *
 * A partition queue has a single active consumer, the first that came; the others wait. What it
 * held unacknowledged when it was lost, RabbitMQ gives to the next in its old order and ahead of
 * all that is newer. [Measured on 3.10, with acknowledgements out of turn before the loss:] so it is
 * when the connection or the channel ends, and it is not so
 * - when the consumer is cancelled: the next one begins at once, with newer messages, while the
 *   older ones are still held here. So an ordered consumer ends with its channel;
 * - when the next one has a smaller prefetch and is lost as well: what it was not given yet of the
 *   returned messages then comes before what it returns. So the prefetch is not an option;
 * - when a message is put back alone: it comes again behind others. So none ever is.
 *
 * A message between two queues would lose its place too, so nothing goes through a retry queue.
 */
export interface OrderedTopology extends GroupTopology {
  partitions: number;
}

/**
 * Messages of one partition that are out at a time, whether their handler runs or they wait for
 * their turn or their next attempt. The same for every instance and version: see above. Enough to
 * find other keys beside one that is stuck, and little enough to be kept in memory for each of 32
 * partitions.
 */
export const PARTITION_PREFETCH = 64;

/**
 * Declares all queues of the group. What a message comes by is bound last, when every slot has its
 * queue: one without would take the way of messages that have no order.
 * @throws EscrowError INVALID_CONFIGURATION when something exists with other properties: as another
 *   number of partitions, or the queue of a group without order
 */
export async function declareOrderedTopology(
  channel: Channel,
  topology: OrderedTopology,
): Promise<void> {
  const { topic, group, routingKeys, partitions } = topology;
  const main = queueName(topic, group);
  const ordered = orderedExchangeName(topic, group);
  const unordered = unorderedExchangeName(partitioningOf(topology));
  await declareOrderedExchange(channel, topology);
  for (const queue of queuesOf(topology)) await declareQueue(channel, queue);
  await named(
    `exchange ${unordered}`,
    channel.assertExchange(unordered, 'fanout', { durable: true }),
  );
  await named(`the binding of ${main}`, channel.bindQueue(main, unordered, ''));
  for (let partition = 0; partition < partitions; partition += 1) {
    await declarePartitionQueue(channel, topology, partition);
  }
  for (const routingKey of routingKeys) {
    await named(`the binding of ${ordered}`, channel.bindExchange(ordered, topic, routingKey));
  }
}

/** Declares what the consumer of one partition needs; the rest is there, or is others' to declare. */
export async function declarePartition(
  channel: Channel,
  topology: OrderedTopology,
  partition: number,
): Promise<void> {
  const dead = deadLetterQueueName(topology.topic, topology.group);
  await declareOrderedExchange(channel, topology);
  for (const queue of queuesOf(topology)) {
    if (queue.name === dead) await declareQueue(channel, queue);
  }
  await declarePartitionQueue(channel, topology, partition);
}

export function partitionQueueOf(topology: OrderedTopology, partition: number): QueueDeclaration {
  return {
    name: partitionQueueName(partitioningOf(topology), partition),
    arguments: {
      ...QUORUM,
      'x-single-active-consumer': true,
      'x-delivery-limit': DELIVERY_LIMIT,
      ...handOnTo(deadLetterQueueName(topology.topic, topology.group)),
    },
  };
}

async function declarePartitionQueue(
  channel: Channel,
  topology: OrderedTopology,
  partition: number,
): Promise<void> {
  const ordered = orderedExchangeName(topology.topic, topology.group);
  const queue = partitionQueueOf(topology, partition);
  await declareQueue(channel, queue);
  for (let slot = 0; slot < ORDERING_SLOTS; slot += 1) {
    if (partitionOf(slot, topology.partitions) !== partition) continue;
    const match = { 'x-match': 'all', [HEADERS.orderingSlot]: slot };
    await named(`the binding of ${queue.name}`, channel.bindQueue(queue.name, ordered, '', match));
  }
}

async function declareOrderedExchange(channel: Channel, topology: OrderedTopology): Promise<void> {
  const { topic, group, partitions } = topology;
  const name = orderedExchangeName(topic, group);
  const unordered = unorderedExchangeName(partitioningOf(topology));
  const options = { durable: true, alternateExchange: unordered };
  try {
    await named(`exchange ${name}`, channel.assertExchange(name, 'headers', options));
  } catch (error) {
    // RabbitMQ compares the alternate exchange, and its name has the number in it.
    if (!isEscrowError(error) || !error.message.includes('alternate-exchange')) throw error;
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `group ${group} has topic ${topic} in another number of partitions than ${partitions}: see ` +
        `the names of its queues, ${queueName(topic, group)}:p0of<partitions>. To change it, stop ` +
        'what is sent to the topic, let the group consume what it has, close its instances, ' +
        `delete exchange ${name} and the partition queues, and subscribe again`,
      { cause: error },
    );
  }
}

function partitioningOf({ topic, group, partitions }: OrderedTopology) {
  return { topic, consumerGroup: group, partitions };
}

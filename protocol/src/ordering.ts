import { queueName } from './amqp.js';

/*
 * Order per key: messages of one topic and ordering key are forwarded one after the other, in the
 * order of their commits, and numbered by `HEADERS.sequence`. A consumer group that wants to keep
 * that order shares a topic among several queues by the slot of the key.
 */

/**
 * Slots that the keys of a topic fall into; each belongs to one partition queue of a group, so a
 * group has at most as many partitions. Never changed: a key would move to another queue while
 * messages of it wait in the old one. 32 queues of one group and topic are more than the instances
 * of most services, and few enough to be declared and looked after.
 */
export const ORDERING_SLOTS = 32;

const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** FNV-1a, 32 bits wide, over the UTF-8 bytes. */
function fnv1a(text: string): number {
  let hash = FNV_OFFSET;
  for (const byte of new TextEncoder().encode(text)) {
    hash = Math.imul(hash ^ byte, FNV_PRIME);
  }
  return hash >>> 0;
}

/** The end of MurmurHash3, without which the low bits of FNV of similar keys are alike. */
function mixed(hash: number): number {
  let mix = hash ^ (hash >>> 16);
  mix = Math.imul(mix, 0x85ebca6b);
  mix ^= mix >>> 13;
  mix = Math.imul(mix, 0xc2b2ae35);
  return (mix ^ (mix >>> 16)) >>> 0;
}

/**
 * The slot of an ordering key, from 0 to `ORDERING_SLOTS - 1`: the same in every version and on
 * every machine. FNV-1a of `<topic>` NUL `<key>` in UTF-8, mixed by the end of MurmurHash3; the
 * broker sends it along as `HEADERS.orderingSlot`, so that nobody else has to compute it.
 *
 * @example orderingSlotOf('user', 'user-7') // 9
 */
export const orderingSlotOf = (topic: string, orderingKey: string): number =>
  mixed(fnv1a(`${topic}\0${orderingKey}`)) % ORDERING_SLOTS;

/** How an ordered group takes a topic apart: see `consumer-sdk/src/ordered/topology.ts`. */
export interface Partitioning {
  /** The topic that is taken apart. */
  topic: string;
  /** The group that takes it apart. */
  consumerGroup: string;
  /** Number of partition queues, 1 to `ORDERING_SLOTS`. */
  partitions: number;
}

/** The headers exchange that gives each slot to its partition queue. */
export const orderedExchangeName = (topic: string, consumerGroup: string) =>
  `${queueName(topic, consumerGroup)}:ordered`;
/**
 * The exchange for messages without an ordering key. The number of partitions is in the name, so
 * that it is a property of the headers exchange, whose alternate exchange this is.
 */
export const unorderedExchangeName = ({ topic, consumerGroup, partitions }: Partitioning) =>
  `${queueName(topic, consumerGroup)}:unordered-of-${partitions}`;
/** The queue of one partition. @param partition from 0 */
export const partitionQueueName = (partitioning: Partitioning, partition: number) => {
  const { topic, consumerGroup, partitions } = partitioning;
  return `${queueName(topic, consumerGroup)}:p${partition}of${partitions}`;
};
/** The partition that a slot belongs to. */
export const partitionOf = (slot: number, partitions: number) => slot % partitions;

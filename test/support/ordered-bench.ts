import type { Message } from '@escrowmq/consumer';
import {
  HEADERS,
  orderedExchangeName,
  orderingSlotOf,
  partitionQueueName,
  unorderedExchangeName,
} from '@escrowmq/protocol';
import { type ConfirmChannel, connect } from 'amqplib';
import { type ConsumerBench, openBench } from './consumer-bench.js';
import { amqpProperties, bodyOf, type TestMessage } from './publish.js';

export interface KeyedMessage extends TestMessage {
  orderingKey: string;
  sequence: number;
}

/** The headers that the broker adds to a message with an ordering key. */
function orderingHeaders({ topic, orderingKey, sequence }: KeyedMessage) {
  return {
    [HEADERS.orderingKey]: orderingKey,
    [HEADERS.sequence]: sequence,
    [HEADERS.orderingSlot]: orderingSlotOf(topic, orderingKey),
  };
}

/**
 * Publishes messages with ordering keys as the broker's forwarder does, and waits for the confirms.
 * @returns their ids
 */
export async function publishKeyed(
  channel: ConfirmChannel,
  messages: readonly KeyedMessage[],
): Promise<string[]> {
  const ids = messages.map((message) => {
    const properties = amqpProperties(message);
    Object.assign(properties.headers!, orderingHeaders(message));
    const options = { ...properties, mandatory: true };
    channel.publish(message.topic, message.routingKey ?? '', bodyOf(message), options);
    return properties.messageId;
  });
  await channel.waitForConfirms();
  return ids;
}

/** `count` messages for each key, as they come when all keys are busy. */
export function keyedMessages(topic: string, keys: readonly string[], count: number) {
  const messages: KeyedMessage[] = [];
  for (let sequence = 1; sequence <= count; sequence += 1) {
    for (const orderingKey of keys) messages.push({ topic, orderingKey, sequence, data: sequence });
  }
  return messages;
}

export const keysNamed = (count: number) => Array.from({ length: count }, (_, n) => `key-${n}`);

/** Watches handlers: whether two of a key ever run at once, and in which order they are called. */
export class KeyWatch {
  /** Every call, in order: `<key> <sequence>`. */
  readonly calls: string[] = [];
  readonly overlaps: string[] = [];
  /** The most handlers that ran at a time. */
  runningMax = 0;
  readonly #running = new Map<string, number>();
  readonly #first = new Map<string, number[]>();
  readonly #done = new Map<string, number[]>();

  /** To be called at the start of a handler; returns what is to be called at its end. */
  begin({ orderingKey = '', sequence = 0 }: Message): (outcome: 'done' | 'failed') => void {
    this.calls.push(`${orderingKey} ${sequence}`);
    const other = this.#running.get(orderingKey);
    if (other !== undefined) this.overlaps.push(`${orderingKey}: ${sequence} while ${other} ran`);
    this.#running.set(orderingKey, sequence);
    this.runningMax = Math.max(this.runningMax, this.#running.size);
    const first = listOf(this.#first, orderingKey);
    if (!first.includes(sequence)) first.push(sequence);
    return (outcome) => {
      this.#running.delete(orderingKey);
      if (outcome === 'done') listOf(this.#done, orderingKey).push(sequence);
    };
  }

  /** Sequences in the order in which a handler saw them for the first time. */
  firstCalls(key: string): number[] {
    return listOf(this.#first, key);
  }

  /** Sequences in the order in which a handler ended well, repeats among them. */
  done(key: string): number[] {
    return listOf(this.#done, key);
  }

  isDone(keys: readonly string[], count: number): boolean {
    return keys.every((key) => new Set(this.done(key)).size === count);
  }
}

function listOf(lists: Map<string, number[]>, key: string): number[] {
  const list = lists.get(key) ?? [];
  lists.set(key, list);
  return list;
}

export const numbersTo = (count: number) => Array.from({ length: count }, (_, n) => n + 1);

/** Of the groups under test. */
export const PARTITIONS = 4;

export interface OrderedBenchOptions {
  topic: string;
  group: string;
  retryDelaysMs: number[];
  ordered: { partitions: number };
}

/** A consumer under test, and the options of its ordered group; end with `deleteOrdered`. */
export async function openOrderedBench(
  rabbitmq: string,
  retryDelaysMs: number[],
): Promise<{ bench: ConsumerBench; options: OrderedBenchOptions }> {
  const bench = await openBench(rabbitmq, retryDelaysMs);
  const { topic, group } = bench;
  return { bench, options: { topic, group, retryDelaysMs, ordered: { partitions: PARTITIONS } } };
}

/** Deletes what an ordered group has beyond the queues of any group. */
export async function deleteOrdered(
  rabbitmq: string,
  options: Pick<OrderedBenchOptions, 'topic' | 'group' | 'ordered'>,
): Promise<void> {
  const { topic, group } = options;
  const { partitions } = options.ordered;
  const partitioning = { topic, consumerGroup: group, partitions };
  const connection = await connect(rabbitmq);
  const channel = await connection.createChannel();
  for (let partition = 0; partition < partitions; partition += 1) {
    await channel.deleteQueue(partitionQueueName(partitioning, partition));
  }
  await channel.deleteExchange(orderedExchangeName(topic, group));
  await channel.deleteExchange(unorderedExchangeName(partitioning));
  await connection.close();
}

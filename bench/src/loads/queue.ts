import { setTimeout as pause } from 'node:timers/promises';
import { type ChannelModel, connect } from 'amqplib';
import { uuidv7 } from 'uuidv7';
import { z } from 'zod';

/** Settings of every load that ends in a queue of RabbitMQ. */
export const QueueSettings = z.object({
  /** `amqp://…` */
  rabbitmq: z.string(),
  queueType: z.enum(['classic', 'quorum']),
  /** Of the body of each message. */
  dataBytes: z.number().int().min(16),
});

/** Where the messages of a load end up. Nobody consumes. */
export interface BenchQueue {
  readonly name: string;
  readonly topic: string;
  readonly model: ChannelModel;
  purge(): Promise<void>;
  /** Resolves when it holds that many. @throws Error when it holds more, or not all in time */
  holds(messages: number): Promise<void>;
  /** Deletes the queue, whatever it holds, and its topic. */
  close(): Promise<void>;
}

export const ROUTING_KEY = 'registered';

/** Asking costs RabbitMQ a message; less often would blur the end of a run. */
const POLL_MS = 5;

/** Thousands of messages a second are drained: what is missing after this is lost. */
const DRAIN_MS_MAX = 60_000;

/** A durable queue of its own, bound to a topic of its own. */
export async function openQueue(
  rabbitmq: string,
  queueType: 'classic' | 'quorum',
): Promise<BenchQueue> {
  const model = await connect(rabbitmq, { noDelay: true });
  const channel = await model.createChannel();
  // Fresh names: deleting a queue with 100,000 messages may outlast the load that asked for it.
  const name = `bench-${uuidv7()}`;
  await channel.assertExchange(name, 'topic', { durable: true });
  await channel.assertQueue(name, { durable: true, arguments: { 'x-queue-type': queueType } });
  await channel.bindQueue(name, name, ROUTING_KEY);
  return {
    name,
    topic: name,
    model,
    async purge() {
      await channel.purgeQueue(name);
    },
    async holds(messages) {
      const startedAt = performance.now();
      for (;;) {
        const { messageCount } = await channel.checkQueue(name);
        if (messageCount === messages) return;
        const late = performance.now() - startedAt > DRAIN_MS_MAX;
        if (messageCount > messages || late) {
          throw new Error(`the queue holds ${messageCount} messages instead of ${messages}`);
        }
        await pause(POLL_MS);
      }
    },
    async close() {
      await channel.deleteQueue(name);
      await channel.deleteExchange(name);
      await model.close();
    },
  };
}

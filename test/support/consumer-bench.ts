import { type Consumer, type ConsumerEvent, createConsumer } from '@escrowmq/consumer';
import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { type ChannelModel, type ConfirmChannel, connect, type GetMessage } from 'amqplib';
import { takeFrom } from './rabbit.js';
import { uniqueName } from './servers.js';
import { until } from './until.js';

/** A consumer under test on a topic of its own, and a channel beside it to publish and to look. */
export interface ConsumerBench {
  consumer: Consumer;
  channel: ConfirmChannel;
  topic: string;
  group: string;
  /** Everything the consumer logged so far. */
  events: ConsumerEvent[];
  /** Takes the next message from a queue, waiting for it. */
  take(queue: string): Promise<GetMessage>;
  takeDeadLetter(): Promise<GetMessage>;
  /** Waits until the consumer has logged such an event, and returns it. */
  event<Name extends ConsumerEvent['event']>(
    name: Name,
    count?: number,
    timeoutMs?: number,
  ): Promise<Extract<ConsumerEvent, { event: Name }>>;
  close(): Promise<void>;
}

/**
 * @param retryDelaysMs the delays that the tests use, whose queues `close` deletes
 * @param through another way to RabbitMQ for the consumer, that a test may cut @default rabbitmq
 */
export async function openBench(
  rabbitmq: string,
  retryDelaysMs: number[] = [],
  through = rabbitmq,
): Promise<ConsumerBench> {
  const topic = uniqueName('topic');
  const group = uniqueName('group');
  const events: ConsumerEvent[] = [];
  const consumer = createConsumer({ rabbitmq: through, logger: (event) => events.push(event) });
  const connection: ChannelModel = await connect(rabbitmq);
  // A test that cuts all connections cuts this one as well.
  connection.on('error', () => {});
  const channel = await connection.createConfirmChannel();

  const take = (queue: string) => takeFrom(channel, queue);

  return {
    consumer,
    channel,
    topic,
    group,
    events,
    take,
    takeDeadLetter: () => take(deadLetterQueueName(topic, group)),
    async event(name, count = 1, timeoutMs?: number) {
      const named = () => events.filter(({ event }) => event === name);
      await until(`${name} was logged ${count} times`, () => named().length >= count, timeoutMs);
      return named()[count - 1] as never;
    },
    async close() {
      await consumer.close();
      const cleaner = await connect(rabbitmq);
      const cleaning = await cleaner.createChannel();
      const queues = [
        ...retryDelaysMs.map((delayMs) => retryQueueName(topic, group, delayMs)),
        queueName(topic, group),
        deadLetterQueueName(topic, group),
      ];
      for (const queue of queues) await cleaning.deleteQueue(queue);
      await cleaning.deleteExchange(topic);
      await cleaner.close();
      await connection.close().catch(() => undefined);
    },
  };
}

import { createConsumer } from '@escrowmq/consumer';
import { deadLetterQueueName, queueName, retryQueueName } from '@escrowmq/protocol';
import { connect } from 'amqplib';
import { type Arrival, type ArrivalsSettings, monotonicMs } from './consume-arrivals.js';
import type { MessageData } from './local-transaction-ways.js';

/*
 * The consumer's process. Its parent sends a count and gets that many arrivals; it ends when its
 * parent lets go.
 */
const { rabbitmq, kind, topic }: ArrivalsSettings = JSON.parse(process.argv.at(-1) ?? '');

/** More than ever is on its way at a moderate rate: prefetch is not what is measured. */
const PREFETCH = 250;
const GROUP = 'bench';
/** Never used: nothing here fails. One delay is one queue less to declare than two. */
const RETRY_DELAY_MS = 1_000;

const arrivals: Arrival[] = [];
let wanted = Number.POSITIVE_INFINITY;

function arrived(data: MessageData, atMs: number): void {
  arrivals.push({ number: data.number, atMs });
  answer();
}

function answer(): void {
  if (arrivals.length < wanted) return;
  process.send?.(arrivals.splice(0, wanted));
  wanted = Number.POSITIVE_INFINITY;
}

const model = await connect(rabbitmq, { noDelay: true });
const channel = await model.createChannel();
const close = kind === 'bare' ? await consumeBare() : await consumeBySdk();
process.on('message', (count) => {
  wanted = Number(count);
  answer();
});
process.once('disconnect', async () => {
  await close();
  await channel.deleteExchange(topic);
  await model.close();
});
process.send?.('ready');

/** What amqplib can do, on a queue of the same type. */
async function consumeBare(): Promise<() => Promise<void>> {
  await channel.assertExchange(topic, 'topic', { durable: true });
  await channel.assertQueue(topic, { durable: true, arguments: { 'x-queue-type': 'quorum' } });
  await channel.bindQueue(topic, topic, '#');
  await channel.prefetch(PREFETCH);
  await channel.consume(topic, (message) => {
    if (message === null) throw new Error(`queue ${topic} is gone`);
    const atMs = monotonicMs();
    arrived(JSON.parse(message.content.toString()), atMs);
    channel.ack(message);
  });
  return async () => {
    await channel.deleteQueue(topic);
  };
}

async function consumeBySdk(): Promise<() => Promise<void>> {
  const consumer = createConsumer({ rabbitmq });
  const options = { topic, group: GROUP, concurrency: PREFETCH, retryDelaysMs: [RETRY_DELAY_MS] };
  await consumer.subscribe<MessageData>(options, (message) => arrived(message.data, monotonicMs()));
  return async () => {
    await consumer.close();
    const queues = [
      queueName(topic, GROUP),
      retryQueueName(topic, GROUP, RETRY_DELAY_MS),
      deadLetterQueueName(topic, GROUP),
    ];
    for (const queue of queues) await channel.deleteQueue(queue);
  };
}

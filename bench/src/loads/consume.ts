import { setTimeout as pause } from 'node:timers/promises';
import { createConsumer } from '@escrowmq/consumer';
import { type ConsumeMessage, connect } from 'amqplib';
import { z } from 'zod';
import { type ConsumeQueue, GROUP, openConsumeQueue, RETRY_DELAYS_MS } from './consume-queue.js';
import { openWorker, Work, type Worker } from './consume-work.js';
import { serveLoad } from './load.js';

/*
 * Consuming what is in a queue already until it is empty, by bare amqplib or by the consumer SDK:
 * the same queue, the same messages, and as many out at a time.
 */
const Settings = z.object({
  rabbitmq: z.string(),
  dataBytes: z.number().int(),
  /** In the queue at the start. */
  messages: z.number().int().positive(),
  /** Messages out at a time (prefetch), and connections to the database. */
  concurrency: z.number().int().positive(),
  consumer: z.enum(['bare', 'sdk']),
  work: Work,
  warmUpSeconds: z.number().positive(),
  /** URL of the consumer's database, where there is work. */
  database: z.string().optional(),
});

/** What RabbitMQ has not applied yet when a channel closes comes back into the queue [seen]. */
const ACKNOWLEDGED_MS = 250;

type Settings = z.output<typeof Settings>;

interface Parts {
  settings: Settings;
  queue: ConsumeQueue;
  worker: Worker | undefined;
}

/**
 * Starts to consume; resolves with what ends it.
 * @param consumed called after each message: acknowledged, or about to be without waiting
 */
type Start = (consumed: () => void) => Promise<() => Promise<void>>;

await serveLoad(Settings, async (settings: Settings) => {
  const queue = await openConsumeQueue(settings.rabbitmq, settings.dataBytes);
  const worker = await workerFor(settings);
  const parts = { settings, queue, worker };
  const { start, close } = settings.consumer === 'bare' ? await openBare(parts) : openSdk(parts);

  async function run(messages: number) {
    const startedAt = performance.now();
    const { consumed, all } = countDown(messages);
    const end = await start(consumed);
    await all;
    const seconds = (performance.now() - startedAt) / 1000;
    await pause(ACKNOWLEDGED_MS);
    await end();
    await queue.empty();
    return { operations: messages, seconds, latencyMs: {} };
  }

  const fill = () => queue.fill(settings.messages);
  // Filling counts: what little code consumes is compiled long before.
  const warmAt = performance.now() + settings.warmUpSeconds * 1000;
  do {
    await fill();
    await run(settings.messages);
  } while (performance.now() < warmAt);
  await fill();
  return {
    run: () => run(settings.messages),
    reset: fill,
    async close() {
      await close();
      await worker?.close();
      await queue.close();
    },
  };
});

function countDown(from: number): { consumed(): void; all: Promise<void> } {
  let left = from;
  let finish = () => {};
  const all = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const consumed = () => {
    left -= 1;
    if (left === 0) finish();
  };
  return { consumed, all };
}

async function workerFor(settings: Settings): Promise<Worker | undefined> {
  const { work, database, concurrency } = settings;
  if (work === 'nothing') return undefined;
  if (database === undefined) throw new Error(`the work "${work}" needs a database`);
  return openWorker(work, database, concurrency);
}

async function openBare({ settings, queue, worker }: Parts) {
  const model = await connect(settings.rabbitmq, { noDelay: true });
  const start: Start = async (consumed) => {
    const channel = await model.createChannel();
    await channel.prefetch(settings.concurrency);
    const take = async (message: ConsumeMessage | null) => {
      if (message === null) throw new Error(`queue ${queue.name} is gone`);
      // Whatever a consumer does, it reads the message.
      JSON.parse(message.content.toString());
      if (worker !== undefined) {
        await worker.work({ id: String(message.properties.messageId), group: GROUP });
      }
      channel.ack(message);
      consumed();
    };
    // A failure is an unhandled rejection and ends the process, which is what it should do.
    await channel.consume(queue.name, (message) => void take(message));
    return () => channel.close();
  };
  return { start, close: () => model.close() };
}

function openSdk({ settings, queue, worker }: Parts) {
  const consumer = createConsumer({
    rabbitmq: settings.rabbitmq,
    // A retry or a dead letter would be a slower figure, and nobody would know why.
    logger(event) {
      if (event.event !== 'connected' && event.event !== 'consuming') {
        throw new Error(JSON.stringify(event));
      }
    },
  });
  const options = {
    topic: queue.topic,
    group: GROUP,
    concurrency: settings.concurrency,
    retryDelaysMs: RETRY_DELAYS_MS,
  };
  const start: Start = async (consumed) => {
    const subscription = await consumer.subscribe(options, async (message) => {
      await worker?.work(message);
      consumed();
    });
    return () => subscription.close();
  };
  return { start, close: () => consumer.close() };
}

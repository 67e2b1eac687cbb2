import { uuidv7 } from 'uuidv7';
import type { z } from 'zod';
import { CommonSettings, closedLoops, Latencies, serveLoad, warmUpOf } from './load.js';
import { openQueue, QueueSettings } from './queue.js';

/*
 * The limit: nothing but confirmed publishing with amqplib, as many in flight as there are loops.
 * No database, no HTTP, no broker, no headers, no routing by topic, and nothing mandatory. The
 * message is as persistent and as long as everybody else's, under an id as long as EscrowMQ's.
 */

const Settings = CommonSettings.extend(QueueSettings.shape);

await serveLoad(Settings, async (settings: z.output<typeof Settings>) => {
  const queue = await openQueue(settings.rabbitmq, settings.queueType);
  const channel = await queue.model.createConfirmChannel();
  const body = Buffer.alloc(settings.dataBytes, 'x');
  const publish = () =>
    new Promise<void>((resolve, reject) => {
      const options = {
        persistent: true,
        messageId: `${uuidv7()}-0`,
        contentType: 'application/json',
      };
      channel.sendToQueue(queue.name, body, options, (error: unknown) => {
        if (error) reject(error instanceof Error ? error : new Error('RabbitMQ refused a message'));
        else resolve();
      });
    });
  await closedLoops(warmUpOf(settings), publish);
  await queue.purge();

  return {
    async run() {
      const latencies = new Latencies();
      const startedAt = performance.now();
      const operations = await closedLoops(settings, async () => {
        const from = performance.now();
        await publish();
        latencies.add(performance.now() - from);
      });
      // Every confirm has been waited for: this is not part of the time, only of the proof.
      const seconds = (performance.now() - startedAt) / 1000;
      await queue.holds(operations);
      return { operations, seconds, latencyMs: { publish: latencies.quantiles() } };
    },
    reset: () => queue.purge(),
    close: () => queue.close(),
  };
});

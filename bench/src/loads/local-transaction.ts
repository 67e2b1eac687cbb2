import type { z } from 'zod';
import { CommonSettings, closedLoops, Latencies, serveLoad, warmUpOf } from './load.js';
import { openWay, WaySettings } from './local-transaction-ways.js';
import { openQueue, QueueSettings } from './queue.js';

/*
 * Local transactions, one after the other in each loop, with or without a message. With one, the
 * clock runs until the last message is in the queue and the outbox or the broker is done with it.
 */
const Settings = CommonSettings.extend({ ...QueueSettings.shape, ...WaySettings.shape });

await serveLoad(Settings, async (settings: z.output<typeof Settings>) => {
  const queue = await openQueue(settings.rabbitmq, settings.queueType);
  const way = await openWay(settings, queue.topic);
  const messagesPerTransaction = settings.way === 'plain' ? 0 : 1;
  let number = 0;

  async function run(loops: z.output<typeof CommonSettings>) {
    const transactions = new Latencies();
    const startedAt = performance.now();
    const operations = await closedLoops(loops, async () => {
      const calledAt = performance.now();
      await way.place(number++);
      transactions.add(performance.now() - calledAt);
    });
    const loopsSeconds = (performance.now() - startedAt) / 1000;
    await queue.holds(operations * messagesPerTransaction);
    await way.idle();
    return {
      operations,
      seconds: (performance.now() - startedAt) / 1000,
      latencyMs: { transaction: transactions.quantiles() },
      counts: { committedPerSecond: operations / loopsSeconds },
    };
  }

  await run(warmUpOf(settings));
  await queue.purge();
  return {
    run: () => run(settings),
    reset: () => queue.purge(),
    async close() {
      await way.close();
      await queue.close();
    },
  };
});

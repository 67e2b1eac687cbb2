import { createProducer } from '@escrowmq/producer';
import { uuidv7 } from 'uuidv7';
import { z } from 'zod';
import { Latencies, serveLoad } from './load.js';
import { messageTo, PRODUCER_GROUP, registerGroup } from './transactions.js';

/*
 * So many transactions, prepared and committed by the SDK, of a broker whose RabbitMQ is stopped.
 * The run ends with the last commit. No warm-up: each transaction stays in the backlog and counts.
 */

const Settings = z.object({
  /** Closed loops. */
  concurrency: z.number().int().positive(),
  transactions: z.number().int().positive(),
  /** `http://127.0.0.1:port` */
  broker: z.string(),
  topic: z.string(),
  dataBytes: z.number().int().positive(),
});

await serveLoad(Settings, async (settings: z.output<typeof Settings>) => {
  const { broker, topic, transactions, concurrency, dataBytes } = settings;
  await registerGroup(broker);
  const producer = createProducer({ brokers: [broker], producerGroup: PRODUCER_GROUP });
  const messages = [messageTo({ topic }, dataBytes)];

  async function run() {
    const prepares = new Latencies();
    const commits = new Latencies();
    let left = transactions;
    const loop = async () => {
      while (left > 0) {
        left -= 1;
        const id = uuidv7();
        const from = performance.now();
        await producer.prepare({ id, messages });
        const prepared = performance.now();
        await producer.commit(id);
        prepares.add(prepared - from);
        commits.add(performance.now() - prepared);
      }
    };
    const startedAt = performance.now();
    await Promise.all(Array.from({ length: concurrency }, loop));
    return {
      operations: transactions,
      seconds: (performance.now() - startedAt) / 1000,
      latencyMs: { prepare: prepares.quantiles(), commit: commits.quantiles() },
    };
  }

  return { run, close: () => producer.close() };
});

import { setTimeout as pause } from 'node:timers/promises';
import { createConsumer, once } from '@escrowmq/consumer';
import { openPool } from './ask.js';
import { sha256 } from './jobs.js';
import {
  CONSUMER_GROUP,
  ConsumerSettings,
  ROUTING_KEY,
  readSettings,
  report,
  TOPIC,
} from './settings.js';

/*
 * A consumer of the soak: writes down what it got, once, in the database that it shares with the
 * other instances of its group.
 */

const CONCURRENCY = 32;
/**
 * Retries for a minute and more: longer than any fault lasts, so that nothing becomes a dead
 * letter, which would be rightly undelivered and wrongly missed.
 */
const RETRY_DELAYS_MS = [100, 500, 500, ...Array<number>(29).fill(2_000)];
const HANDLER_MS_MAX = 15_000;
const REPEAT_PAUSE_MS = 300;

const settings = readSettings(ConsumerSettings);
const pool = openPool(settings.database, CONCURRENCY);
const consumer = createConsumer({
  rabbitmq: settings.rabbitmq,
  logger: (event) => process.stdout.write(`${JSON.stringify(event)}\n`),
});
process.once('SIGTERM', () => void consumer.close().then(() => process.exit(0)));

for (;;) {
  try {
    await subscribe();
    break;
  } catch (error) {
    // RabbitMQ was away for the whole of the start; it will be back.
    process.stderr.write(`${error}\n`);
    await pause(REPEAT_PAUSE_MS);
  }
}
report({ ready: true });

async function subscribe(): Promise<void> {
  await consumer.subscribe(
    {
      topic: TOPIC,
      group: CONSUMER_GROUP,
      routingKeys: [ROUTING_KEY],
      concurrency: CONCURRENCY,
      retryDelaysMs: RETRY_DELAYS_MS,
      handlerTimeoutMs: HANDLER_MS_MAX,
    },
    async (message) => {
      const result = await once(pool, message, (tx) =>
        tx.execute('insert into effect (transaction_id, message_number, sha256) values (?, ?, ?)', [
          message.transactionId,
          message.number,
          sha256(message.body),
        ]),
      );
      if (result === 'duplicate') report({ duplicate: true });
    },
  );
}

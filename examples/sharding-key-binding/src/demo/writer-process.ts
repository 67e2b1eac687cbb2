import { createConsumer } from '@escrowmq/consumer';
import { startIndexWriters } from '../index-writer.js';
import { openShards } from '../shards.js';
import { countDelivery, createDeliveriesTable } from './deliveries.js';
import type { WriterSettings } from './messages.js';
import { serve } from './serve.js';

/*
 * The three index writers as a process of their own, which the demo pauses.
 */
serve(async (settings: WriterSettings) => {
  const shards = openShards(settings.shardUrls);
  await createDeliveriesTable(shards);
  const consumer = createConsumer({
    rabbitmq: settings.rabbitmqUrl,
    logger: (event) => console.log(JSON.stringify(event)),
  });
  await startIndexWriters({
    consumer,
    shards,
    onDelivery: (index, message) =>
      countDelivery(shards.ofValue(index.valueOf(message.data)), message),
  });
  return {
    async close() {
      await consumer.close();
      await shards.close();
    },
  };
});

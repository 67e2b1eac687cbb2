import { createProducer, type PrepareOptions } from '@escrowmq/producer';
import { PRODUCER_GROUP, serveTransactions } from './transactions.js';

/** EscrowMQ as its producers use it: the SDK, which turns concurrent calls into batches. */
await serveTransactions(async ({ broker }) => {
  const producer = createProducer({ brokers: [broker], producerGroup: PRODUCER_GROUP });
  return {
    async prepare(transaction) {
      await producer.prepare(transaction as PrepareOptions);
    },
    async commit(id) {
      await producer.commit(id);
    },
    close: () => producer.close(),
  };
});

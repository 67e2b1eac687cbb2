import { Pool } from 'undici';
import { PRODUCER_GROUP, serveTransactions } from './transactions.js';

/** EscrowMQ without its SDK: one plain HTTP request per call, over as many connections as loops. */
await serveTransactions(async ({ broker, concurrency }) => {
  const pool = new Pool(broker, { connections: concurrency });
  const headers = { 'content-type': 'application/json' };
  async function call(path: string, expected: number, body: string | null): Promise<void> {
    const answer = await pool.request({
      method: 'POST',
      path,
      body,
      ...(body === null ? {} : { headers }),
    });
    const text = await answer.body.text();
    if (answer.statusCode !== expected) {
      throw new Error(`POST ${path} answered ${answer.statusCode} ${text}`);
    }
  }
  return {
    prepare: ({ id, messages }) => {
      const body = JSON.stringify({ id, producerGroup: PRODUCER_GROUP, messages });
      return call('/v1/transactions', 201, body);
    },
    commit: (id) => call(`/v1/transactions/${id}/commit`, 200, null),
    close: () => pool.close(),
  };
});

/*
 * A consumer as a process of its own, on the built code, to be killed. JavaScript on purpose, as it
 * runs without jest's transform.
 *
 *   consumer-once-child.mjs <rabbitmq> <database> <topic> <group> <kill at>
 *
 *   kill at   SIGKILL for itself after the COMMIT of so many messages, before the last one of them is
 *             acknowledged and while others are under way; 0: never
 *
 * Each message adds to an account, once, and overwrites the price of a product, the latest. Says
 * `consuming` when it does; ends with SIGTERM, when what is under way has been acknowledged.
 */
import { createPool } from 'mysql2/promise';
import {
  createConsumer,
  createDuplicateFront,
  latest,
  once,
} from '../../consumer-sdk/dist/index.js';

const [rabbitmq, uri, topic, group, killAt] = process.argv.slice(2);
const pool = createPool({ uri, connectionLimit: 8 });
const consumer = createConsumer({ rabbitmq });
const front = createDuplicateFront({ sizeMax: 1_000 });
let applied = 0;

const subscription = await consumer.subscribe(
  { topic, group, concurrency: 16, retryDelaysMs: [10, 10, 10] },
  async (message) => {
    const { account, amount, product, version, price, failures } = message.data;
    const result = await once(
      pool,
      message,
      async (tx) => {
        await tx.execute(
          'update account set balance = balance + ?, applied = applied + 1 where id = ?',
          [amount, account],
        );
        if (message.attempts < failures) throw new Error(`attempt ${message.attempts + 1} fails`);
      },
      { front },
    );
    if (result === 'applied') {
      applied += 1;
      if (applied === Number(killAt)) process.kill(process.pid, 'SIGKILL');
    }
    await latest(pool, message, { key: `product:${product}`, at: version, front }, (tx) =>
      tx.execute('update product set version = ?, price = ? where id = ?', [
        version,
        price,
        product,
      ]),
    );
  },
);
console.log('consuming');
process.once('SIGTERM', async () => {
  await subscription.close();
  await consumer.close();
  await pool.end();
});

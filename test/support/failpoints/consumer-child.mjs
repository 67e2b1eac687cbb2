/*
 * A consumer as a process of its own, on the built code, to fail at a point.
 *
 *   consumer-child.mjs <rabbitmq> <database> <topic> <group>
 *
 * Notes each message that it applies. Says `consuming` when it does.
 */
import { createPool } from 'mysql2/promise';
import { createConsumer, once } from '../../../consumer-sdk/dist/index.js';
import { fromMysql2 } from '../../../database/dist/adapters/mysql2.js';
import { failingDatabase } from './wrappers.mjs';

const [rabbitmq, uri, topic, group] = process.argv.slice(2);
const database = failingDatabase(fromMysql2(createPool({ uri, connectionLimit: 2 })));
const consumer = createConsumer({ rabbitmq });
await consumer.subscribe(
  { topic, group, concurrency: 1, retryDelaysMs: [100] },
  async (message) => {
    await once(database, message, (tx) =>
      tx.execute(
        `insert into effect (consumer_group, message_id, account, body, times) values (?, ?, ?, ?, 1)
       on duplicate key update times = times + 1`,
        [group, message.id, message.data.account, message.data.body],
      ),
    );
  },
);
console.log('consuming');

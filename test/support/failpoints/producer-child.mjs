/*
 * A producer as a process of its own, on the built code, to fail at a point.
 *
 *   producer-child.mjs <database> <broker> <group> <topic> <first account>
 *
 * Registers three accounts, each with its message; the second one is refused by the service itself.
 */
import { createPool } from 'mysql2/promise';
import { fromMysql2 } from '../../../database/dist/adapters/mysql2.js';
import { createProducer } from '../../../producer-sdk/dist/index.js';
import { reach } from './failpoint.mjs';
import { failingDatabase } from './wrappers.mjs';

const [uri, broker, producerGroup, topic, first] = process.argv.slice(2);
const pool = createPool({ uri, connectionLimit: 2 });
const producer = createProducer({ brokers: [broker], producerGroup });
const database = failingDatabase(fromMysql2(pool));

for (const number of [0, 1, 2]) {
  const account = Number(first) + number;
  const body = `account ${account}`;
  const done = producer.transaction(database, { topic, data: { account, body } }, async (tx) => {
    reach('work:before');
    await tx.execute('insert into account (id, body) values (?, ?)', [account, body]);
    reach('work:after');
    if (number === 1) throw new Error('refused by the service');
  });
  // What is thrown is rolled back, and what became of it is read in the databases.
  await done.catch((error) => console.log(`account ${account}: ${error.message}`));
}
await producer.close();
await pool.end();

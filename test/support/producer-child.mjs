/*
 * A producer as a process of its own, on the built code, to be killed. JavaScript on purpose, as it
 * runs without jest's transform.
 *
 *   producer-child.mjs <dialect> <url> <broker> <end> <mode>
 *
 *   end    stay: inserts account 1 in a transaction, says `inserted`, and never ends its callback
 *          end: ends its callback then
 *   mode   prepared, or outbox
 */
import { openSqlite } from '../../broker/dist/store/sqlite/driver.js';
import { fromMysql2 } from '../../database/dist/adapters/mysql2.js';
import { fromPg } from '../../database/dist/adapters/pg.js';
import { fromSqlite } from '../../database/dist/adapters/sqlite.js';
import { createProducer } from '../../producer-sdk/dist/index.js';

const [dialect, url, broker, end, mode] = process.argv.slice(2);

const INSERT = 'insert into account (id) values (1)';
const DATABASES = {
  async mysql() {
    const { createPool } = await import('mysql2/promise');
    return { database: fromMysql2(createPool(url)), insert: (tx) => tx.query(INSERT) };
  },
  async postgres() {
    const { default: pg } = await import('pg');
    const pool = new pg.Pool({ connectionString: url });
    return { database: fromPg(pool), insert: (tx) => tx.query(INSERT) };
  },
  async sqlite() {
    return { database: fromSqlite(() => openSqlite(url)), insert: (tx) => tx.exec(INSERT) };
  },
};

/** More than any test takes: the process is killed while it waits for the broker. */
const NEVER_MS = 600_000;

const { database, insert } = await DATABASES[dialect]();
const producer = createProducer({
  brokers: [broker],
  producerGroup: 'accounts',
  attemptTimeoutMs: NEVER_MS,
  verdictTimeoutMs: NEVER_MS,
  outbox: mode === 'outbox',
});
await producer.transaction(database, { topic: 'user', data: 1 }, async (tx) => {
  await insert(tx);
  process.stdout.write('inserted\n');
  // A timer keeps the process alive where nothing else does.
  if (end === 'stay') await new Promise((resolve) => setTimeout(resolve, NEVER_MS));
});

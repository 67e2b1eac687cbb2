/*
 * A service as a process of its own, on the built code, with housekeeping on: it must end by itself.
 * JavaScript on purpose, as it runs without jest's transform.
 *
 *   housekeeping-child.mjs <sqlite file> waiting    ends while the first purge is minutes ahead
 *   housekeeping-child.mjs <sqlite file> purging    ends between two portions of it
 *   housekeeping-child.mjs <mysql url> closing      closes its pool, and ends
 *
 * Says what it has left in the table.
 */
import Database from 'better-sqlite3';
import { createPool } from 'mysql2/promise';
import { fromSqlite } from '../../database/dist/adapters/sqlite.js';
import { ensureBarrierTable } from '../../producer-sdk/dist/index.js';

const [where, what] = process.argv.slice(2);

if (what === 'purging') {
  // The first purge comes at once, and the pause after a portion takes a minute.
  const { setTimeout } = globalThis;
  globalThis.setTimeout = (work, ms) => setTimeout(work, ms > 60_000 ? 1 : 60_000);
}
if (what === 'closing') {
  const pool = createPool(where);
  await ensureBarrierTable(pool);
  await pool.end();
} else {
  const connections = [];
  const database = fromSqlite(() => {
    const connection = new Database(where);
    connections.push(connection);
    return connection;
  });
  await ensureBarrierTable(database);
  const count = () => connections[0].prepare('select count(*) as rows from escrow_barrier').get();
  const before = count().rows;
  // Looks once each turn of the event loop, and keeps it going for that long only.
  while (what === 'purging' && count().rows === before) await new Promise(setImmediate);
  process.stdout.write(`${count().rows}\n`);
}

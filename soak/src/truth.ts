import { createRequire } from 'node:module';
import { createConnection } from 'mysql2/promise';
import { CONSUMER_DATABASE, PRODUCER_DATABASES, STORE_DATABASE } from './world/names.js';
import type { World } from './world/world.js';

/*
 * The truth, in one SQLite database: everything that the services' own databases and the brokers'
 * store hold when all of them have stopped. One file, so that the checks are plain SQL over all of
 * it, and so that a failing run leaves something that anybody can ask further questions.
 */

/** What is used of SQLite; better-sqlite3 and `node:sqlite` both have it. */
export interface TruthDatabase {
  prepare(sql: string): {
    all(...values: unknown[]): unknown[];
    run(...values: unknown[]): unknown;
  };
  exec(sql: string): void;
  close(): void;
}

const TRUTH_TABLES = `
  -- What producers have committed: each row must arrive once, and nothing else may.
  create table business (transaction_id text, message_number int, sha256 text, producer text, kind text);
  -- What consumers have applied, and the notes of it that make a repeat harmless.
  create table effect (transaction_id text, message_number int, sha256 text);
  create table consumed (transaction_id text, message_number int);
  -- The rows in the producers' databases that make the answers to checks final.
  create table barrier (transaction_id text, decision text, producer text);
  -- What the brokers say.
  create table escrow (transaction_id text, state text, decision text, decided_by text,
    parked_reason text, unknown_answers int, unanswered int);
  create table edge (entry int, transaction_id text, state_from text, state_to text,
    decision_from text, decision_to text, at text);
  create table history (entry int, transaction_id text, at int, event text, detail text);
  create table counter (name text, value int);
  create index business_id on business (transaction_id, message_number);
  create index effect_id on effect (transaction_id, message_number);
  create index consumed_id on consumed (transaction_id, message_number);
  create index barrier_id on barrier (transaction_id);
  create index escrow_id on escrow (transaction_id);
  create index edge_id on edge (transaction_id);`;

/** An id of 16 bytes as it is written. */
const ID_TEXT = (column: string) =>
  `lower(concat_ws('-', hex(substr(${column}, 1, 4)), hex(substr(${column}, 5, 2)),
    hex(substr(${column}, 7, 2)), hex(substr(${column}, 9, 2)), hex(substr(${column}, 11))))`;

const FROM_PRODUCER = {
  business: `select transaction_id, message_number, sha256, ? as producer, 'local' as kind from business
    union all select transaction_id, 0, sha256, ?, 'send' from send`,
  // The other rows are the database's own identity, which is of no transaction.
  barrier: `select ${ID_TEXT('transaction_id')}, decision, ? as producer from escrow_barrier
    where created_at < '9999-01-01'`,
};
const FROM_CONSUMERS = {
  effect: 'select transaction_id, message_number, sha256 from effect',
  // A message's id is that of its transaction, a hyphen and its number.
  consumed: `select left(message_id, 36), cast(substr(message_id, 38) as unsigned) from escrow_consumed`,
};
const FROM_STORE = {
  escrow: `select ${ID_TEXT('id')}, state, decision, decided_by, parked_reason, checks, unanswered
    from escrow_transaction`,
  edge: `select entry, ${ID_TEXT('transaction_id')}, state_from, state_to, decision_from, decision_to,
    cast(at as char) from soak_edge`,
  history: `select entry, ${ID_TEXT('transaction_id')}, at, event, detail from escrow_history`,
  counter: 'select name, value from escrow_counter',
};

/** Empty, with all tables. @param path of a new file, or `:memory:` */
export function openTruth(path: string): TruthDatabase {
  const database = openSqlite(path);
  database.exec(TRUTH_TABLES);
  return database;
}

/** Copies everything. The services have stopped, so that it is one moment. */
export async function gatherTruth(world: World, path: string): Promise<TruthDatabase> {
  const truth = openTruth(path);
  const { databases } = world;
  truth.exec('begin');
  for (const [producer, database] of Object.entries(PRODUCER_DATABASES)) {
    const from = { url: databases.services.server.url, database };
    await copy(truth, from, {
      into: 'business',
      sql: FROM_PRODUCER.business,
      values: [producer, producer],
    });
    await copy(truth, from, { into: 'barrier', sql: FROM_PRODUCER.barrier, values: [producer] });
  }
  for (const [into, sql] of Object.entries(FROM_CONSUMERS)) {
    await copy(
      truth,
      { url: databases.services.server.url, database: CONSUMER_DATABASE },
      { into, sql },
    );
  }
  for (const [into, sql] of Object.entries(FROM_STORE)) {
    await copy(truth, { url: databases.store.server.url, database: STORE_DATABASE }, { into, sql });
  }
  truth.exec('commit');
  return truth;
}

async function copy(
  truth: TruthDatabase,
  from: { url: string; database: string },
  { into, sql, values = [] }: { into: string; sql: string; values?: string[] },
): Promise<void> {
  const connection = await createConnection({ uri: from.url, database: from.database });
  try {
    const [rows] = await connection.query({ sql, rowsAsArray: true }, values);
    const found = rows as unknown[][];
    if (found[0] === undefined) return;
    const insert = truth.prepare(
      `insert into ${into} values (${found[0].map(() => '?').join(', ')})`,
    );
    for (const row of found) insert.run(...row);
  } finally {
    await connection.end();
  }
}

/** `node:sqlite` where Node has it without a flag (from 22.13), and better-sqlite3 before. */
function openSqlite(path: string): TruthDatabase {
  const require = createRequire(import.meta.url);
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 13)) {
    const { DatabaseSync } = require('node:sqlite') as {
      DatabaseSync: new (path: string) => TruthDatabase;
    };
    return new DatabaseSync(path);
  }
  const Database = require('better-sqlite3') as new (path: string) => TruthDatabase;
  return new Database(path);
}

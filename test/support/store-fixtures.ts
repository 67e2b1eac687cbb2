import { randomBytes } from 'node:crypto';
import type { Message } from '@escrowmq/protocol';
import { contentHash } from '../../broker/src/domain/content-hash.js';
import type { Found, Store } from '../../broker/src/domain/ports.js';
import {
  byProducer,
  type Content,
  type Decision,
  type NewTransaction,
} from '../../broker/src/domain/transaction.js';
import { type Migration, migrate } from '../../broker/src/store/migrate.js';
import { openMysqlDatabase } from '../../broker/src/store/mysql/database.js';
import { migrations as mysqlMigrations } from '../../broker/src/store/mysql/migrations.js';
import type { Database } from '../../broker/src/store/sql.js';
import { openSqliteDatabase } from '../../broker/src/store/sqlite/database.js';
import { migrations as sqliteMigrations } from '../../broker/src/store/sqlite/migrations.js';
import { createStore } from '../../broker/src/store/store.js';

/** A store, and the database under it to look at what no operation tells. */
export interface OpenStore {
  store: Store;
  database: Database;
}

export type OpenForTest = () => Promise<OpenStore>;

async function migrated(database: Database, migrations: readonly Migration[]): Promise<OpenStore> {
  await migrate(database, migrations);
  return { store: createStore(database, 'test'), database };
}

export const openSqliteForTest = (path: string): Promise<OpenStore> =>
  migrated(openSqliteDatabase(path), sqliteMigrations);

export const openMysqlForTest = (url: string): Promise<OpenStore> =>
  migrated(openMysqlDatabase(url), mysqlMigrations);

const TABLES = [
  'escrow_transaction',
  'escrow_ordered_message',
  'escrow_ordering_key',
  'escrow_business_key',
  'escrow_receipt',
  'escrow_compensation',
  'escrow_history',
  'escrow_tombstone',
  'escrow_unsettled',
  'escrow_counter',
  'escrow_producer_group',
  'escrow_webhook',
];

/** An empty store, by DELETE: TRUNCATE takes a hundred times as long on small InnoDB tables. */
export async function emptyStore({ database }: OpenStore): Promise<void> {
  for (const table of TABLES) await database.run(`delete from ${table}`);
}

/**
 * A UUIDv7.
 * @param at the UTC milliseconds inside it @default now
 */
export function newId(at = Date.now()): string {
  const hex = at.toString(16).padStart(12, '0') + randomBytes(10).toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-7${hex.slice(13, 16)}-8${hex.slice(17, 20)}-${hex.slice(20)}`;
}

export const message = (changes: Partial<Message> = {}): Message => ({
  topic: 'user',
  routingKey: 'registered',
  data: { userId: 7 },
  headers: {},
  ifUnrouted: 'retry',
  ...changes,
});

/** `count` messages that differ in their data. */
export const messages = (count: number): Message[] =>
  Array.from({ length: count }, (_, number) => message({ data: { number } }));

export interface TransactionChanges extends Partial<Content> {
  preparedAt?: number;
  mayBePurged?: boolean;
  kind?: NewTransaction['kind'];
}

/** A prepare of the group `accounts` with one message, first checked in a minute. */
export function newTransaction(changes: TransactionChanges = {}): NewTransaction {
  const { preparedAt, mayBePurged, kind, ...rest } = changes;
  const content: Content = {
    id: newId(),
    producerGroup: 'accounts',
    businessKeys: [],
    expects: [],
    checkContext: undefined,
    messages: [message()],
    trace: {},
    ...rest,
  };
  const messagesJson = JSON.stringify(content.messages);
  const how = kind ?? { op: 'prepare', checkAfterMs: 60_000 };
  return {
    ...content,
    contentHash: contentHash(content, how.op),
    preparedAt: preparedAt ?? Date.now(),
    messagesJson,
    bytes: Buffer.byteLength(messagesJson),
    mayBePurged: mayBePurged ?? false,
    kind: how,
  };
}

/** Inserts one transaction that must be new, and resolves with its id. */
export async function prepare(store: Store, changes: TransactionChanges = {}): Promise<string> {
  const transaction = newTransaction(changes);
  const [inserted] = await store.insert([transaction]);
  if (inserted?.kind !== 'created') throw new Error(`${transaction.id} is ${inserted?.kind}`);
  return transaction.id;
}

/** The producer's verdict, which must move the row. Committed rows are due at once. */
export async function decide(store: Store, id: string, decision: Decision): Promise<void> {
  const [result] = await store.decide([{ id, decision, decidedBy: byProducer }], 0);
  if (result?.kind !== 'moved') throw new Error(`${decision} of ${id} is ${result?.kind}`);
}

/** All that is pending of these is confirmed. */
export async function forward(store: Store, ids: readonly string[]): Promise<void> {
  const forwardedAt = await store.now();
  await store.saveForwards(
    ids.map((id) => ({
      id,
      done: 2 ** 32 - 1,
      unrouted: 0,
      to: { state: 'forwarded', forwardedAt },
      history: [],
    })),
  );
}

/** Prepared, committed and forwarded. */
export async function forwardedTransaction(
  store: Store,
  changes: TransactionChanges = {},
): Promise<string> {
  const id = await prepare(store, changes);
  await decide(store, id, 'commit');
  await forward(store, [id]);
  return id;
}

/** The row under an id; a missing one, or its tombstone, fails the test. */
export async function rowOf(store: Store, id: string): Promise<Extract<Found, { kind: 'row' }>> {
  const found = (await store.find([id])).get(id);
  if (found?.kind !== 'row') throw new Error(`${id} has ${found?.kind ?? 'neither row nor stone'}`);
  return found;
}

/** One column of a transaction that no operation shows. */
export async function columnOf(
  { database }: OpenStore,
  id: string,
  column: string,
): Promise<unknown> {
  const key = Buffer.from(id.replaceAll('-', ''), 'hex');
  const [row] = await database.all<{ value: unknown }>(
    `select ${column} as value from escrow_transaction where id = ?`,
    [key],
  );
  return row?.value;
}

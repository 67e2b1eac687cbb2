import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Store } from '../domain/ports.js';
import { type Database, type Dialect, idBytes, idText, type Sql } from './sql.js';

interface FinishedRow {
  id: Uint8Array;
  state: 'forwarded' | 'rolledBack';
}

/** The smallest UUIDv7 whose time is `at`; ids sort by time, so it bounds a scan of the key. */
function idAt(at: number): Buffer {
  const hex = Math.max(0, at).toString(16).padStart(12, '0');
  return idBytes(`${hex}00000000000000000000`);
}

/**
 * How far an id's time may run ahead of the store's clock and be purged on time; one that runs
 * further ahead waits until its own time is over. What is younger is not looked at: with an hour,
 * as far as an id may be ahead, each pass read all of an hour's rows in vain.
 */
const IDS_AHEAD_MS = 60_000;

const OWED = `select 1 from escrow_compensation
  where transaction_id = escrow_transaction.id and escrow_compensation.state = 'owed'`;

/**
 * Walks the primary key from its old end, so no index is needed: what is finished there goes, and
 * what is still open, or owes a compensation, stays in the way.
 */
const IS_OVER = (now: string) => `state in ('forwarded', 'rolledBack')
    and finished_at <= ${now} - ? and not exists (${OWED})`;

/**
 * Rows looked at in one statement. A million messages that wait for a day in a year stand in the way
 * of every pass: as one statement that was four seconds in which SQLite did nothing else, and it
 * began anew for every batch.
 */
const WINDOW_ROWS = 1_000;

const windowEnd = (byId: string) => `
  select id from escrow_transaction ${byId}
  where id > ? and id < ? order by id limit 1 offset ${WINDOW_ROWS - 1}`;

const overInWindow = ({ now, byId }: Dialect, isLast: boolean) => `
  select id from escrow_transaction ${byId}
  where id > ? and id ${isLast ? '<' : '<='} ? and ${IS_OVER(now)}
  order by id limit ?`;

/** Again, and locked: somebody else may purge at the same time. */
const lockOver = ({ now, byId, skipLocked }: Dialect, list: string) => `
  select id, state from escrow_transaction ${byId}
  where id ${list} and ${IS_OVER(now)} order by id ${skipLocked}`;

/**
 * An id has a tombstone already when it was used again, which takes a clock that jumped. The first
 * decision stands, and the purge goes on instead of failing on this row for ever.
 */
const entomb = (now: string, list: string) => `
  insert into escrow_tombstone
    (id, producer_group, content_hash, decision, decided_at, decided_by, decision_reason, purged_at)
  select id, producer_group, content_hash, decision, decided_at, decided_by, decision_reason, ${now}
  from escrow_transaction
  where id ${list} and id not in (select id from escrow_tombstone)`;

/** Rows that hang on a transaction go with it. */
const DEPENDENTS = [
  'escrow_business_key',
  'escrow_receipt',
  'escrow_compensation',
  'escrow_history',
];

/**
 * Asked once more of what is locked now: a receipt that came while the rows were looked for may have
 * made a compensation of one, and the first look does not see what it committed.
 */
async function withoutOwed(
  sql: Sql,
  { inIds }: Dialect,
  rows: readonly FinishedRow[],
): Promise<FinishedRow[]> {
  if (rows.length === 0) return [];
  const { list, values } = inIds(rows.map(({ id }) => idText(id)));
  const owing = await sql.all<{ id: Uint8Array }>(
    `select transaction_id as id from escrow_compensation
     where transaction_id ${list} and state = 'owed'`,
    values,
  );
  const owed = new Set(owing.map(({ id }) => idText(id)));
  return rows.filter(({ id }) => !owed.has(idText(id)));
}

async function countPurged(sql: Sql, name: string, by: number): Promise<void> {
  if (by === 0) return;
  await sql.insertRows({
    table: 'escrow_counter',
    columns: ['name', 'value'],
    rows: [[name, 0]],
    onDuplicate: 'ignore',
  });
  await sql.run('update escrow_counter set value = value + ? where name = ?', [by, name]);
}

interface Search {
  /** Ids up to this one are behind us. */
  after: Uint8Array;
  olderThanMs: number;
  limit: number;
}

/**
 * Ids of the next rows whose time is over, in the order of ids, and where the next search goes on:
 * nowhere when there is nothing more.
 */
async function nextOver(
  database: Database,
  { after, olderThanMs, limit }: Search,
): Promise<{ ids: string[]; goOnAfter?: Uint8Array }> {
  const { dialect } = database;
  const [clock] = await database.all<{ now: number }>(`select ${dialect.now} as now`);
  const bound = idAt((clock?.now ?? 0) - olderThanMs + IDS_AHEAD_MS);
  const ids: string[] = [];
  let start = after;
  for (;;) {
    await nextTurn();
    const from = Buffer.from(start);
    const [end] = await database.all<{ id: Uint8Array }>(windowEnd(dialect.byId), [from, bound]);
    const found = await database.all<{ id: Uint8Array }>(overInWindow(dialect, end === undefined), [
      from,
      end === undefined ? bound : Buffer.from(end.id),
      olderThanMs,
      limit - ids.length,
    ]);
    ids.push(...found.map(({ id }) => idText(id)));
    const last = found.at(-1);
    if (ids.length >= limit && last !== undefined) return { ids, goOnAfter: last.id };
    if (end === undefined) return { ids };
    start = end.id;
  }
}

/** Rows, their tombstones and the count of them change in one transaction: the sum always holds. */
function purgeRows(database: Database, ids: readonly string[], olderThanMs: number) {
  const { dialect } = database;
  const { now, inIds } = dialect;
  const asked = inIds(ids);
  return database.transaction(async (sql) => {
    const found = await sql.all<FinishedRow>(lockOver(dialect, asked.list), [
      ...asked.values,
      olderThanMs,
    ]);
    const rows = await withoutOwed(sql, dialect, found);
    if (rows.length === 0) return 0;
    const { list, values } = inIds(rows.map(({ id }) => idText(id)));
    await sql.run(entomb(now, list), values);
    for (const table of DEPENDENTS) {
      await sql.run(`delete from ${table} where transaction_id ${list}`, values);
    }
    await sql.run(`delete from escrow_transaction where id ${list}`, values);
    const forwarded = rows.filter(({ state }) => state === 'forwarded').length;
    await countPurged(sql, 'purged.forwarded', forwarded);
    await countPurged(sql, 'purged.rolledBack', rows.length - forwarded);
    return rows.length;
  });
}

/** Before every id. */
const START = Buffer.alloc(16);

/**
 * Purges batch after batch, each beginning where the one before it ended, and from the old end again
 * after the newest. SQLite answers at once, so whoever purges batch after batch would not let
 * anything else of the process have its turn: a million rows held up everything for eleven seconds.
 */
export function createPurge(database: Database): Store['purgeFinished'] {
  let after: Uint8Array = START;
  return async ({ olderThanMs, limit }) => {
    const { ids, goOnAfter = START } = await nextOver(database, { after, olderThanMs, limit });
    const purged = ids.length === 0 ? 0 : await purgeRows(database, ids, olderThanMs);
    after = goOnAfter;
    return purged;
  };
}
export async function purgeTombstones(
  database: Database,
  purge: { olderThanMs: number; limit: number },
): Promise<number> {
  const { now, skipLocked, inIds } = database.dialect;
  await nextTurn();
  return database.transaction(async (sql) => {
    const rows = await sql.all<{ id: Uint8Array }>(
      `select id from escrow_tombstone where purged_at <= ${now} - ?
       order by purged_at limit ? ${skipLocked}`,
      [purge.olderThanMs, purge.limit],
    );
    if (rows.length === 0) return 0;
    const { list, values } = inIds(rows.map(({ id }) => idText(id)));
    return sql.run(`delete from escrow_tombstone where id ${list}`, values);
  });
}

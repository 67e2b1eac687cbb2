import { setImmediate as nextTurn } from 'node:timers/promises';
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
 * only what is still open, or owes a compensation, stays in the way.
 */
const finishedRows = ({ now, byId, skipLocked }: Dialect) => `
  select id, state from escrow_transaction ${byId}
  where id < ? and state in ('forwarded', 'rolledBack') and finished_at <= ${now} - ?
    and not exists (${OWED})
  order by id limit ? ${skipLocked}`;

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

/**
 * Rows, their tombstones and the count of them change in one transaction: the sum always holds.
 *
 * SQLite answers at once, so whoever purges batch after batch would not let anything else of the
 * process have its turn: a million rows held up everything for eleven seconds.
 */
export async function purgeFinished(
  database: Database,
  purge: { olderThanMs: number; limit: number },
): Promise<number> {
  const { dialect } = database;
  const { now, inIds } = dialect;
  await nextTurn();
  const [clock] = await database.all<{ now: number }>(`select ${now} as now`);
  const bound = idAt((clock?.now ?? 0) - purge.olderThanMs + IDS_AHEAD_MS);
  return database.transaction(async (sql) => {
    const found = await sql.all<FinishedRow>(finishedRows(dialect), [
      bound,
      purge.olderThanMs,
      purge.limit,
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

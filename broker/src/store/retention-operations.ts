import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Store } from '../domain/ports.js';
import { type Condition, findOld, START } from './old-rows.js';
import { type Database, type Dialect, idText, NEVER, type Sql } from './sql.js';
import { forgetUnsettled, keepUnsettled } from './unsettled-operations.js';

interface FinishedRow {
  id: Uint8Array;
  state: 'forwarded' | 'rolledBack';
}

const OWED = `select 1 from escrow_compensation
  where transaction_id = escrow_transaction.id and escrow_compensation.state = 'owed'`;

/** By age, which is counted from the closing where it was closed: so that its record can be read as long. */
const CLOSED = (now: string) => `select 1 from escrow_unsettled
  where transaction_id = escrow_transaction.id and closed_at <= ${now} - ?`;

/** Every expected group has said of each of its messages that it consumed it, or gave it up for good. */
const SAID = `select count(*) from escrow_receipt
  where transaction_id = escrow_transaction.id`;

/**
 * What is finished, and of which nobody owes anything: no group a word, no producer a compensation.
 * What is closed owes no word any more.
 */
const isOver = (now: string, olderThanMs: number): Condition => ({
  sql: `state in ('forwarded', 'rolledBack') and finished_at <= ${now} - ?
    and (settled_at <> ${NEVER} or receipts_wanted = (${SAID}) or exists (${CLOSED(now)}))
    and not exists (${OWED})`,
  values: [olderThanMs, olderThanMs],
});

/** Again, and locked: somebody else may purge at the same time. */
const lockOver = (
  { byId, skipLocked }: Dialect,
  { list, over }: { list: string; over: string },
) => `
  select id, state from escrow_transaction ${byId}
  where id ${list} and ${over} order by id ${skipLocked}`;

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

/** Rows that hang on a transaction go with it; business keys go too, unless it never settled. */
const DEPENDENTS = ['escrow_receipt', 'escrow_compensation', 'escrow_history'];

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

/** Rows, their tombstones and the count of them change in one transaction: the sum always holds. */
function purgeRows(database: Database, ids: readonly string[], olderThanMs: number) {
  const { dialect } = database;
  const { now, inIds } = dialect;
  const asked = inIds(ids);
  const over = isOver(now, olderThanMs);
  return database.transaction(async (sql) => {
    const found = await sql.all<FinishedRow>(
      lockOver(dialect, { list: asked.list, over: over.sql }),
      [...asked.values, ...over.values],
    );
    const rows = await withoutOwed(sql, dialect, found);
    if (rows.length === 0) return 0;
    const { list, values } = inIds(rows.map(({ id }) => idText(id)));
    await sql.run(entomb(now, list), values);
    await keepUnsettled(
      sql,
      dialect,
      rows.map(({ id }) => idText(id)),
    );
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

/**
 * Purges batch after batch, each beginning where the one before it ended, and from the old end again
 * after the newest. SQLite answers at once, so whoever purges batch after batch would not let
 * anything else of the process have its turn: a million rows held up everything for eleven seconds.
 */
export function createPurge(database: Database): Store['purgeFinished'] {
  let after: Uint8Array = START;
  return async ({ olderThanMs, limit }) => {
    const condition = isOver(database.dialect.now, olderThanMs);
    const { ids, goOnAfter = START } = await findOld(database, {
      ...{ condition, after, olderThanMs, limit },
    });
    const purged = ids.length === 0 ? 0 : await purgeRows(database, ids, olderThanMs);
    after = goOnAfter;
    return purged;
  };
}

/** With a tombstone goes what is still known of how its transaction ended without having settled. */
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
    const ids = rows.map(({ id }) => idText(id));
    const { list, values } = inIds(ids);
    await forgetUnsettled(sql, database.dialect, ids);
    return sql.run(`delete from escrow_tombstone where id ${list}`, values);
  });
}

import type { ForwardingToSave, ForwardToPostpone } from '../domain/ports.js';
import type { Committed, StoreTime } from '../domain/transaction.js';
import { leaseRows } from './check-operations.js';
import { historyRows } from './history.js';
import { COMMITTED_COLUMNS, type CommittedRow, committedOf } from './rows.js';
import { type Database, type Dialect, idBytes, idText, NEVER, type Sql } from './sql.js';

/** Sizes first: the messages are read only for what is taken. Uses the index on what is due. */
const dueForwards = (now: string) => `
  select id, bytes, ${now} as store_now from escrow_transaction
  where state = 'committed' and due_at <= ${now}
  order by due_at limit ?`;

export async function claimDueForwards(
  database: Database,
  claim: { limit: number; bytesMax: number; leaseMs: number },
): Promise<{ now: StoreTime; due: Committed[] }> {
  const { dialect } = database;
  const { now, skipLocked } = dialect;
  return database.transaction(async (sql) => {
    const rows = await sql.all<{ id: Uint8Array; bytes: number; store_now: number }>(
      `${dueForwards(now)} ${skipLocked}`,
      [claim.limit],
    );
    const [first] = rows;
    if (first === undefined) return { now: 0, due: [] };
    let bytes = 0;
    const ids = rows
      .filter((row, index) => {
        bytes += row.bytes;
        return index === 0 || bytes <= claim.bytesMax;
      })
      .map(({ id }) => idText(id));
    await leaseRows(sql, dialect, { ids, leaseMs: claim.leaseMs });
    // The rows come back in order of their ids; the claim has the oldest due first.
    const place = new Map(ids.map((id, index) => [id, index]));
    const due = await committedRows(sql, ids, dialect);
    due.sort((a, b) => (place.get(a.id) ?? 0) - (place.get(b.id) ?? 0));
    return { now: first.store_now, due };
  });
}

async function committedRows(
  sql: Sql,
  ids: readonly string[],
  { byId, inIds }: Dialect,
): Promise<Committed[]> {
  if (ids.length === 0) return [];
  const { list, values } = inIds(ids);
  const rows = await sql.all<CommittedRow>(
    `select ${COMMITTED_COLUMNS} from escrow_transaction ${byId}
     where id ${list} and state = 'committed' order by id`,
    values,
  );
  return rows.map(committedOf);
}

export const readCommitted = (database: Database, ids: readonly string[]): Promise<Committed[]> =>
  committedRows(database, ids, database.dialect);

/**
 * All that was pending is confirmed. The mask only ever loses bits, so what this round saw pending
 * covers what is pending now.
 */
async function finishAll(database: Database, ids: readonly string[]): Promise<void> {
  const { now, byId, inIds } = database.dialect;
  const { list, values } = inIds(ids);
  await database.run(
    `update escrow_transaction ${byId}
     set state = 'forwarded', pending = 0, due_at = ${NEVER}, finished_at = ${now},
         settled_at = case when receipts_wanted = 0 then ${now} else settled_at end
     where id ${list} and state = 'committed'`,
    values,
  );
}

/**
 * Clears bits for good and says what comes next. Another instance may have cleared the rest
 * meanwhile: then this was the last of it. Every CASE gives the same result whether it reads
 * `pending` before or after its own assignment, because clearing a bit twice changes nothing.
 */
const saveForward = (now: string) => `
  update escrow_transaction
  set pending = pending & ~?, unrouted = unrouted | ?, attempts = attempts + ?, last_failure = ?,
      state = case when (pending & ~?) = 0 then 'forwarded' else ? end,
      due_at = case when (pending & ~?) = 0 then ${NEVER} else ? end,
      finished_at = case when (pending & ~?) = 0 then ${now} else ${NEVER} end,
      settled_at = case when (pending & ~?) = 0 and receipts_wanted = 0 then ${now} else settled_at end,
      parked_reason = case when (pending & ~?) = 0 then 'none' else ? end,
      parked_at = case when (pending & ~?) = 0 then ${NEVER} else ? end
  where id = ? and state = 'committed'`;

function forwardValues({
  id,
  done,
  unrouted,
  to,
  onlyWaits = false,
  lastFailure,
}: ForwardingToSave) {
  const parked = to.state === 'parked';
  const stays = to.state === 'committed' || parked ? to.state : 'committed';
  return [
    done,
    unrouted,
    to.state === 'forwarded' || onlyWaits ? 0 : 1,
    lastFailure ?? null,
    done,
    stays,
    done,
    to.state === 'committed' ? to.dueAt : NEVER,
    done,
    done,
    done,
    parked ? to.reason : 'none',
    done,
    parked ? to.parkedAt : NEVER,
    idBytes(id),
  ];
}

export async function saveForwards(
  database: Database,
  batch: readonly ForwardingToSave[],
): Promise<void> {
  const { now } = database.dialect;
  const isPlain = ({ to, unrouted }: ForwardingToSave) =>
    to.state === 'forwarded' && unrouted === 0;
  const plain = batch.filter(isPlain);
  const others = batch.filter((item) => !isPlain(item));
  if (plain.length > 0) {
    await finishAll(
      database,
      plain.map(({ id }) => id),
    );
  }
  if (others.length === 0) return;
  await database.transaction(async (sql) => {
    // As with checks: what came too late moved nothing, and its history would be untrue.
    const moved: ForwardingToSave[] = [];
    for (const item of others) {
      if ((await sql.run(saveForward(now), forwardValues(item))) === 1) moved.push(item);
    }
    await sql.insertRows(historyRows(moved));
  });
}

/**
 * Every comparison of a CASE is made for every row, so a longer list costs by its square, and a
 * shorter one costs round trips.
 */
const POSTPONED_ROWS_MAX = 64;

/** To a power of two by its last item, so that batches of all lengths make seven texts. */
function filledUp<T>(items: readonly T[]): T[] {
  const filled = [...items];
  const last = filled.at(-1);
  while (last !== undefined && Math.log2(filled.length) % 1 !== 0) filled.push(last);
  return filled;
}

/**
 * Guarded by the state alone. A view of the row that is out of date names a time that is too early,
 * never too late, because the mask of pending messages only ever loses bits.
 */
export async function postponeForwards(
  database: Database,
  batch: readonly ForwardToPostpone[],
): Promise<void> {
  const { byId, inIds } = database.dialect;
  for (let start = 0; start < batch.length; start += POSTPONED_ROWS_MAX) {
    const some = filledUp(batch.slice(start, start + POSTPONED_ROWS_MAX));
    const { list, values } = inIds(some.map(({ id }) => id));
    await database.run(
      `update escrow_transaction ${byId}
       set due_at = case id ${'when ? then ? '.repeat(some.length)} end
       where id ${list} and state = 'committed'`,
      [...some.flatMap(({ id, dueAt }) => [idBytes(id), dueAt]), ...values],
    );
  }
}

export async function releaseForwards(database: Database, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const { now, byId, inIds } = database.dialect;
  const { list, values } = inIds(ids);
  await database.run(
    `update escrow_transaction ${byId} set due_at = ${now} where id ${list} and state = 'committed'`,
    values,
  );
}

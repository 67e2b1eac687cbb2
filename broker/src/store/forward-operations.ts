import { splitPending } from '../domain/delivery-time.js';
import { anyOrdered, BLOCKED_LOOK_AGAIN_MS } from '../domain/ordering.js';
import type { ClaimedForwards, ForwardingToSave, ForwardToPostpone } from '../domain/ports.js';
import type { Committed, StoreTime } from '../domain/transaction.js';
import { leaseRows } from './check-operations.js';
import { historyRows } from './history.js';
import { type Leaving, leaveLines, lockLines, placesOf } from './ordering-operations.js';
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
): Promise<ClaimedForwards> {
  const { dialect } = database;
  const { now, skipLocked } = dialect;
  return database.transaction(async (sql) => {
    const rows = await sql.all<{ id: Uint8Array; bytes: number; store_now: number }>(
      `${dueForwards(now)} ${skipLocked}`,
      [claim.limit],
    );
    const [first] = rows;
    if (first === undefined) return { now: 0, due: [], putOff: 0 };
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
    const read = await committedRows(sql, ids, dialect);
    const blocked = await putOffBlocked(sql, dialect, { read, now: first.store_now });
    const due = blocked.size === 0 ? read : read.filter(({ id }) => !blocked.has(id));
    due.sort((a, b) => (place.get(a.id) ?? 0) - (place.get(b.id) ?? 0));
    return { now: first.store_now, due, putOff: blocked.size };
  });
}

/**
 * What must let others of its key go first is not looked at again before somebody makes it due: a
 * key that a parked transaction holds up would have all behind it claimed again and again. Here,
 * under the lock of the claim, no wake-up can be overwritten: whoever left the line before was seen
 * by this claim, or waits for the row and makes it due afterwards.
 */
async function putOffBlocked(
  sql: Sql,
  dialect: Dialect,
  { read, now }: { read: readonly Committed[]; now: StoreTime },
): Promise<Set<string>> {
  const blocked = new Set<string>();
  const byTime = new Map<StoreTime, string[]>();
  for (const row of read) {
    if (row.places === undefined) continue;
    const parts = splitPending(row, now);
    if (parts.ready !== 0 || parts.blocked === 0) continue;
    blocked.add(row.id);
    const dueAt = parts.nextDueAt ?? now + BLOCKED_LOOK_AGAIN_MS;
    const same = byTime.get(dueAt);
    if (same === undefined) byTime.set(dueAt, [row.id]);
    else same.push(row.id);
  }
  for (const [dueAt, ids] of byTime) {
    const { list, values } = dialect.inIds(ids);
    const text = `update escrow_transaction ${dialect.byId} set due_at = ? where id ${list}`;
    await sql.run(text, [dueAt, ...values]);
  }
  return blocked;
}

async function committedRows(
  sql: Sql,
  ids: readonly string[],
  dialect: Dialect,
): Promise<Committed[]> {
  if (ids.length === 0) return [];
  const { byId, inIds } = dialect;
  const { list, values } = inIds(ids);
  const rows = await sql.all<CommittedRow>(
    `select ${COMMITTED_COLUMNS} from escrow_transaction ${byId}
     where id ${list} and state = 'committed' order by id`,
    values,
  );
  const committed = rows.map(committedOf);
  const ordered = committed.filter(({ messages }) => anyOrdered(messages));
  if (ordered.length === 0) return committed;
  const orderedIds = ordered.map(({ id }) => id);
  for (const [id, places] of await placesOf(sql, dialect, orderedIds)) {
    const row = ordered.find((one) => one.id === id);
    if (row !== undefined) row.places = places;
  }
  return committed;
}

export const readCommitted = (database: Database, ids: readonly string[]): Promise<Committed[]> =>
  committedRows(database, ids, database.dialect);

/**
 * All that was pending is confirmed. The mask only ever loses bits, so what this round saw pending
 * covers what is pending now.
 */
function finishAll(
  sql: Sql,
  { now, byId, inIds }: Dialect,
  ids: readonly string[],
): Promise<number> {
  const { list, values } = inIds(ids);
  return sql.run(
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

/** As with checks: what came too late moves nothing, and its history would be untrue. */
async function saveEach(
  sql: Sql,
  { now }: Dialect,
  batch: readonly ForwardingToSave[],
): Promise<ForwardingToSave[]> {
  const moved: ForwardingToSave[] = [];
  for (const item of batch) {
    if ((await sql.run(saveForward(now), forwardValues(item))) === 1) moved.push(item);
  }
  await sql.insertRows(historyRows(moved));
  return moved;
}

const isFinished = ({ to, unrouted }: ForwardingToSave): boolean =>
  to.state === 'forwarded' && unrouted === 0;

/**
 * Messages leave the lines of their keys in the database transaction that says they are confirmed,
 * and what is behind them may go in it too. Keys are locked before rows, as everywhere: see
 * ordering-operations.ts.
 */
function saveInLine(
  database: Database,
  batch: readonly ForwardingToSave[],
  leaseMs: number,
): Promise<string[]> {
  const { dialect } = database;
  return database.transaction(async (sql) => {
    const places = batch.flatMap((item) => item.places ?? []);
    await lockLines(sql, dialect, places);
    const finished = batch.filter(isFinished);
    const moved = await finishEach(sql, dialect, finished);
    const others = batch.filter((item) => !isFinished(item));
    moved.push(...(await saveEach(sql, dialect, others)));
    const leaving: Leaving[] = moved.map(({ id, done, places: own = [] }) => ({
      id,
      done,
      places: own,
    }));
    return leaveLines(sql, dialect, { leaving, leaseMs });
  });
}

/** Those that are forwarded now. Not what somebody else parked meanwhile, which keeps its places. */
async function finishEach(
  sql: Sql,
  dialect: Dialect,
  batch: readonly ForwardingToSave[],
): Promise<ForwardingToSave[]> {
  if (batch.length === 0) return [];
  const ids = batch.map(({ id }) => id);
  if ((await finishAll(sql, dialect, ids)) === ids.length) return [...batch];
  const { list, values } = dialect.inIds(ids);
  const rows = await sql.all<{ id: Uint8Array }>(
    `select id from escrow_transaction ${dialect.byId} where id ${list} and state = 'forwarded'`,
    values,
  );
  const forwarded = new Set(rows.map(({ id }) => idText(id)));
  return batch.filter(({ id }) => forwarded.has(id));
}

export async function saveForwards(
  database: Database,
  batch: readonly ForwardingToSave[],
  leaseMs = 0,
): Promise<{ woken: string[] }> {
  const inLine = batch.filter(({ places }) => places !== undefined);
  const rest = inLine.length === 0 ? batch : batch.filter(({ places }) => places === undefined);
  const finished = rest.filter(isFinished);
  const others = rest.filter((item) => !isFinished(item));
  if (finished.length > 0) {
    const ids = finished.map(({ id }) => id);
    await finishAll(database, database.dialect, ids);
  }
  if (others.length > 0) {
    await database.transaction((sql) => saveEach(sql, database.dialect, others));
  }
  return { woken: inLine.length === 0 ? [] : await saveInLine(database, inLine, leaseMs) };
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

import type { ForwardingToSave } from '../domain/ports.js';
import type { Committed, StoreTime } from '../domain/transaction.js';
import { lease } from './check-operations.js';
import { historyRows } from './history.js';
import { COMMITTED_COLUMNS, type CommittedRow, committedOf } from './rows.js';
import { type Database, idBytes, idText, marks, type Sql } from './sql.js';

/** Sizes first: the messages are read only for what is taken. Uses the index on (state, due_at). */
const dueForwards = (now: string) => `
  select id, bytes, ${now} as store_now from escrow_transaction
  where state = 'committed' and due_at <= ${now}
  order by due_at limit ?`;

export async function claimDueForwards(
  database: Database,
  claim: { limit: number; bytesMax: number; leaseMs: number },
): Promise<{ now: StoreTime; due: Committed[] }> {
  const { now, skipLocked } = database.dialect;
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
      .map(({ id }) => Buffer.from(id));
    await sql.run(lease(now, ids.length), [claim.leaseMs, ...ids]);
    // The rows come back in order of their ids; the claim has the oldest due first.
    const place = new Map(ids.map((id, index) => [idText(id), index]));
    const due = await committedRows(sql, ids);
    due.sort((a, b) => (place.get(a.id) ?? 0) - (place.get(b.id) ?? 0));
    return { now: first.store_now, due };
  });
}

async function committedRows(sql: Sql, ids: readonly Buffer[]): Promise<Committed[]> {
  if (ids.length === 0) return [];
  const rows = await sql.all<CommittedRow>(
    `select ${COMMITTED_COLUMNS} from escrow_transaction
     where id in (${marks(ids.length)}) and state = 'committed' order by id`,
    ids,
  );
  return rows.map(committedOf);
}

export const readCommitted = (database: Database, ids: readonly string[]): Promise<Committed[]> =>
  committedRows(database, ids.map(idBytes));

/**
 * All that was pending is confirmed. The mask only ever loses bits, so what this round saw pending
 * covers what is pending now. Uses the primary key.
 */
const finishAll = (now: string, ids: number) => `
  update escrow_transaction
  set state = 'forwarded', pending = 0, due_at = null, finished_at = ${now},
      settled_at = case when receipts_wanted = 0 then ${now} else settled_at end
  where id in (${marks(ids)}) and state = 'committed'`;

/**
 * Clears bits for good and says what comes next. Another instance may have cleared the rest
 * meanwhile: then this was the last of it. Every CASE gives the same result whether it reads
 * `pending` before or after its own assignment, because clearing a bit twice changes nothing.
 */
const saveForward = (now: string) => `
  update escrow_transaction
  set pending = pending & ~?, unrouted = unrouted | ?, attempts = attempts + ?, last_failure = ?,
      state = case when (pending & ~?) = 0 then 'forwarded' else ? end,
      due_at = case when (pending & ~?) = 0 then null else ? end,
      finished_at = case when (pending & ~?) = 0 then ${now} else null end,
      settled_at = case when (pending & ~?) = 0 and receipts_wanted = 0 then ${now} else settled_at end,
      parked_reason = case when (pending & ~?) = 0 then null else ? end,
      parked_at = case when (pending & ~?) = 0 then null else ? end
  where id = ? and state = 'committed'`;

function forwardValues({ id, done, unrouted, to, lastFailure }: ForwardingToSave) {
  const parked = to.state === 'parked';
  const stays = to.state === 'committed' || parked ? to.state : 'committed';
  return [
    done,
    unrouted,
    to.state === 'forwarded' ? 0 : 1,
    lastFailure ?? null,
    done,
    stays,
    done,
    to.state === 'committed' ? to.dueAt : null,
    done,
    done,
    done,
    parked ? to.reason : null,
    done,
    parked ? to.parkedAt : null,
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
    await database.run(
      finishAll(now, plain.length),
      plain.map(({ id }) => idBytes(id)),
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

export async function releaseForwards(database: Database, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const { now } = database.dialect;
  await database.run(
    `update escrow_transaction set due_at = ${now}
     where id in (${marks(ids.length)}) and state = 'committed'`,
    ids.map(idBytes),
  );
}

import { type Cancel, type CancelResult, cancelMessages } from '../domain/cancelling.js';
import { receiptsWanted } from '../domain/expectations.js';
import {
  hasMessage,
  type Message,
  type MessageMask,
  withoutMessages,
} from '../domain/transaction.js';
import { historyRows } from './history.js';
import { leaveLines, lockLinesOf } from './ordering-operations.js';
import { decisionOf, expectationsIn, parseDetails, STATE_COLUMNS, type StateRow } from './rows.js';
import { type Database, type Dialect, idBytes, NEVER, type Sql } from './sql.js';

/**
 * Taking back messages that wait for their time. A message is never both cancelled and published:
 *
 * - It is published only by whoever leased its row by a claim, and the claim's time, read while it
 *   locked the row, was not before the message's due time. (What is read without a lock, right
 *   after a commit, goes by the time of the commit; nothing that was due by then can be cancelled.)
 * - It is cancelled only by the UPDATE below, which begins when this transaction has locked the row
 *   already. A database reads its clock when a statement begins, so an UPDATE that had to wait for
 *   the lock would go by a time that is over; this one goes by a time at which it holds the row.
 * - The two locks come one after the other. The claim first: the clock was at the due time then,
 *   and the UPDATE finds it over. The UPDATE first: the claim passes over the locked row, and the
 *   next one reads it without the message.
 *
 * All of that goes by one clock that does not run backwards: the store's. A crash leaves all of the
 * change or none; whoever lost the answer asks again and gets the same.
 */
type CancelRow = StateRow & {
  unrouted: number;
  cancelled: number;
  settled_at: number;
  details: string | null;
  messages: string;
};

async function lockedRow(sql: Sql, id: string, { byId, forUpdate }: Dialect) {
  const [row] = await sql.all<CancelRow>(
    `select ${STATE_COLUMNS}, unrouted, cancelled, settled_at, details, messages
     from escrow_transaction ${byId} where id = ? ${forUpdate}`,
    [idBytes(id)],
  );
  return row;
}

/** Guarded by the time: zero rows changed means that a message came due since it was looked at. */
const takeBack = (now: string, byId: string, more: string) => `
  update escrow_transaction ${byId}
  set pending = pending & ~?, cancelled = cancelled | ?, receipts_wanted = ?${more}
  where id = ? and decision = 'commit' and (pending & ?) = ? and ? > ${now}`;

const FINISHED = (now: string) => `, state = 'forwarded', due_at = ${NEVER}, finished_at = ${now},
  parked_reason = 'none', parked_at = ${NEVER}`;

/** With fewer receipts to wait for, those that have come may be all. */
async function isSettledWith(
  sql: Sql,
  row: CancelRow,
  { wanted, pending }: { wanted: number; pending: MessageMask },
): Promise<boolean> {
  if (wanted === 0) return pending === 0;
  const [consumed] = await sql.all<{ value: number }>(
    `select count(*) as value from escrow_receipt where transaction_id = ? and kind = 'consumed'`,
    [Buffer.from(row.id)],
  );
  return consumed?.value === wanted;
}

async function timeOf(sql: Sql, { now }: Dialect): Promise<number> {
  const [row] = await sql.all<{ now: number }>(`select ${now} as now`);
  if (row === undefined) throw new Error('the database did not tell its time');
  return row.now;
}

export function cancel(
  database: Database,
  { id, producerGroup, numbers, by, reason }: Cancel,
): Promise<CancelResult> {
  const { dialect } = database;
  return database.transaction(async (sql): Promise<CancelResult> => {
    // Keys before rows, as everywhere: see ordering-operations.ts.
    const places = await lockLinesOf(sql, dialect, id);
    const row = await lockedRow(sql, id, dialect);
    if (row === undefined) return tombstoneResult(sql, id, producerGroup);
    if (producerGroup !== undefined && row.producer_group !== producerGroup) {
      return { kind: 'unknown' };
    }
    const messages = JSON.parse(row.messages) as Message[];
    const { state, pending, unrouted, cancelled, decided_at: decidedAt } = row;
    const undecided = decisionOf(row) === undefined;
    const current = { state, undecided, messages, pending, unrouted, cancelled, decidedAt };
    for (;;) {
      const now = await timeOf(sql, dialect);
      const ruling = cancelMessages(current, numbers, now);
      if (ruling.kind === 'refuse') return { kind: 'refused', refusal: ruling.refusal };
      if (ruling.kind === 'keep') return { kind: 'cancelled', state, cancelled };
      const { mask, beforeAt } = ruling;
      const left = withoutMessages(pending, mask);
      const expectations = expectationsIn(parseDetails(row.details), row.message_count);
      const wanted = receiptsWanted(expectations, cancelled + mask);
      const settles =
        row.settled_at === NEVER && (await isSettledWith(sql, row, { wanted, pending: left }));
      const more = `${left === 0 ? FINISHED(dialect.now) : ''}${settles ? `, settled_at = ${dialect.now}` : ''}`;
      const values = [mask, mask, wanted, idBytes(id), mask, mask, beforeAt];
      // Nobody else holds the row, so only time can have passed meanwhile: then the next look says so.
      if ((await sql.run(takeBack(dialect.now, dialect.byId, more), values)) === 0) continue;
      // What stood behind them in the lines of their keys need not wait for them any more.
      if (places.length > 0) {
        await leaveLines(sql, dialect, { leaving: [{ id, places, done: mask }], leaseMs: 0 });
      }
      const taken = messages.flatMap((_, number) => (hasMessage(mask, number) ? [number] : []));
      const detail = { messages: taken, by, reason };
      await sql.insertRows(
        historyRows([{ id, history: [{ at: now, event: 'cancelled', detail }] }]),
      );
      return {
        kind: 'cancelled',
        state: left === 0 ? 'forwarded' : state,
        cancelled: cancelled + mask,
      };
    }
  });
}

/** What is purged was finished before. */
async function tombstoneResult(
  sql: Sql,
  id: string,
  producerGroup: string | undefined,
): Promise<CancelResult> {
  const [stone] = await sql.all<{ producer_group: string; decision: 'commit' | 'rollback' }>(
    'select producer_group, decision from escrow_tombstone where id = ?',
    [idBytes(id)],
  );
  if (stone === undefined) return { kind: 'unknown' };
  if (producerGroup !== undefined && stone.producer_group !== producerGroup) {
    return { kind: 'unknown' };
  }
  const state = stone.decision === 'commit' ? 'forwarded' : 'rolledBack';
  return { kind: 'refused', refusal: { kind: 'purged', state } };
}

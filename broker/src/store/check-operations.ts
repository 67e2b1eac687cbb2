import type { CheckToSave, DueCheck } from '../domain/ports.js';
import type { State, StoreTime } from '../domain/transaction.js';
import { historyRows } from './history.js';
import { parseDetails, STATE_COLUMNS, type StateRow, stateOf } from './rows.js';
import { type Database, idBytes, idText, marks, type SqlValue } from './sql.js';

/** Uses the index on (state, due_at); locks only what it returns, oldest first. */
const dueChecks = (now: string, exceptGroups: number) => `
  select ${STATE_COLUMNS}, details, prepared_at, unanswered_since, alerted, ${now} as store_now
  from escrow_transaction
  where state = 'prepared' and due_at <= ${now}
    ${exceptGroups === 0 ? '' : `and producer_group not in (${marks(exceptGroups)})`}
  order by due_at limit ?`;

/** The lease: nobody else finds these rows due until it is over. */
export const lease = (now: string, ids: number) => `
  update escrow_transaction set due_at = ${now} + ? where id in (${marks(ids)})`;

type DueRow = StateRow & {
  details: string | null;
  prepared_at: number;
  unanswered_since: number | null;
  alerted: number;
  store_now: number;
};

function dueCheckOf(row: DueRow): DueCheck[] {
  const state = stateOf(row);
  if (state.state !== 'prepared') return [];
  const { businessKeys, checkContext } = parseDetails(row.details);
  return [
    {
      id: idText(row.id),
      state,
      producerGroup: row.producer_group,
      businessKeys: businessKeys ?? [],
      ...(checkContext === undefined ? {} : { checkContext }),
      preparedAt: row.prepared_at,
      ...(row.unanswered_since === null ? {} : { unansweredSince: row.unanswered_since }),
      alerted: row.alerted === 1,
    },
  ];
}

export async function claimDueChecks(
  database: Database,
  claim: { limit: number; leaseMs: number; exceptGroups: readonly string[] },
): Promise<{ now: StoreTime; due: DueCheck[] }> {
  const { now, skipLocked } = database.dialect;
  const { limit, leaseMs, exceptGroups } = claim;
  return database.transaction(async (sql) => {
    const rows = await sql.all<DueRow>(`${dueChecks(now, exceptGroups.length)} ${skipLocked}`, [
      ...exceptGroups,
      limit,
    ]);
    const [first] = rows;
    if (first === undefined) return { now: 0, due: [] };
    await sql.run(lease(now, rows.length), [leaseMs, ...rows.map(({ id }) => Buffer.from(id))]);
    return { now: first.store_now, due: rows.flatMap(dueCheckOf) };
  });
}

/** Guarded by what the check saw: a verdict, or another instance's check, wins over this one. */
const saveCheck = `
  update escrow_transaction
  set state = ?, checks = ?, unanswered = ?, unanswered_since = ?, alerted = ?, due_at = ?,
      parked_reason = ?, parked_at = ?
  where id = ? and state = 'prepared' and checks = ? and unanswered = ?`;

function checkColumns(from: CheckToSave['from'], to: State): SqlValue[] | undefined {
  if (to.state === 'prepared') return [to.checks, to.unanswered, to.dueAt, null, null];
  if (to.state === 'parked') return [from.checks + 1, 0, null, to.reason, to.parkedAt];
  return undefined;
}

export async function saveChecks(database: Database, batch: readonly CheckToSave[]): Promise<void> {
  if (batch.length === 0) return;
  await database.transaction(async (sql) => {
    for (const { id, from, to, unansweredSince, alerted } of batch) {
      const columns = checkColumns(from, to);
      if (columns === undefined) throw new Error(`a check can not make ${id} ${to.state}`);
      const [checks, unanswered, dueAt, parkedReason, parkedAt] = columns as [
        SqlValue,
        SqlValue,
        SqlValue,
        SqlValue,
        SqlValue,
      ];
      await sql.run(saveCheck, [
        to.state,
        checks,
        unanswered,
        unansweredSince ?? null,
        alerted ? 1 : 0,
        dueAt,
        parkedReason,
        parkedAt,
        idBytes(id),
        from.checks,
        from.unanswered,
      ]);
    }
    await sql.insertRows(historyRows(batch));
  });
}

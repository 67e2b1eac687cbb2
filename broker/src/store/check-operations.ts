import type { CheckToSave, DueCheck, Overdue, Store } from '../domain/ports.js';
import type { StoreTime } from '../domain/transaction.js';
import { historyRows } from './history.js';
import { parseDetails, STATE_COLUMNS, type StateRow, stateOf } from './rows.js';
import {
  type Database,
  type Dialect,
  idBytes,
  idText,
  marks,
  NEVER,
  type Sql,
  type SqlValue,
} from './sql.js';

/** Uses the index on what is due; locks only what it returns, oldest first. */
const dueChecks = (
  now: string,
  exceptGroups: readonly string[],
  onlyOverdue: readonly Overdue[],
) => `
  select ${STATE_COLUMNS}, details, prepared_at, unanswered_since, alerted, ${now} as store_now
  from escrow_transaction
  where state = 'prepared' and due_at <= ${now}
    ${exceptGroups.length === 0 ? '' : `and producer_group not in (${marks(exceptGroups.length)})`}
    ${onlyOverdue
      .map(
        ({ groups }) =>
          `and (producer_group not in (${marks(groups.length)}) or due_at <= ${now} - ?)`,
      )
      .join(' ')}
  order by due_at limit ?`;

/** The lease: nobody else finds these rows due until it is over. */
export async function leaseRows(
  sql: Sql,
  { now, inIds }: Dialect,
  { ids, leaseMs }: { ids: readonly string[]; leaseMs: number },
): Promise<void> {
  const { list, values } = inIds(ids);
  await sql.run(`update escrow_transaction set due_at = ${now} + ? where id ${list}`, [
    leaseMs,
    ...values,
  ]);
}

type DueRow = StateRow & {
  details: string | null;
  prepared_at: number;
  unanswered_since: number;
  alerted: number;
  store_now: number;
};

function dueCheckOf(row: DueRow): DueCheck[] {
  const state = stateOf(row);
  if (state.state !== 'prepared') return [];
  const { businessKeys, checkContext, trace } = parseDetails(row.details);
  return [
    {
      id: idText(row.id),
      state,
      producerGroup: row.producer_group,
      businessKeys: businessKeys ?? [],
      ...(checkContext === undefined ? {} : { checkContext }),
      preparedAt: row.prepared_at,
      ...(trace === undefined ? {} : { trace }),
      ...(row.unanswered_since === NEVER ? {} : { unansweredSince: row.unanswered_since }),
      alerted: row.alerted === 1,
    },
  ];
}

export async function claimDueChecks(
  database: Database,
  claim: Parameters<Store['claimDueChecks']>[0],
): Promise<{ now: StoreTime; due: DueCheck[] }> {
  const { dialect } = database;
  const { now, skipLocked } = dialect;
  const { limit, leaseMs, exceptGroups, onlyOverdue = [] } = claim;
  return database.transaction(async (sql) => {
    const text = dueChecks(now, exceptGroups, onlyOverdue);
    const rows = await sql.all<DueRow>(`${text} ${skipLocked}`, [
      ...exceptGroups,
      ...onlyOverdue.flatMap(({ groups, overdueMs }) => [...groups, overdueMs]),
      limit,
    ]);
    const [first] = rows;
    if (first === undefined) return { now: 0, due: [] };
    await leaseRows(sql, dialect, { ids: rows.map(({ id }) => idText(id)), leaseMs });
    return { now: first.store_now, due: rows.flatMap(dueCheckOf) };
  });
}

export async function releaseChecks(database: Database, ids: readonly string[]): Promise<void> {
  if (ids.length === 0) return;
  const { now, byId, inIds } = database.dialect;
  const { list, values } = inIds(ids);
  await database.run(
    `update escrow_transaction ${byId} set due_at = ${now} where id ${list} and state = 'prepared'`,
    values,
  );
}

/** Guarded by what the check saw: a verdict, or another instance's check, wins over this one. */
const saveCheck = `
  update escrow_transaction
  set state = ?, checks = ?, unanswered = ?, unanswered_since = ?, alerted = ?, due_at = ?,
      parked_reason = ?, parked_at = ?
  where id = ? and state = 'prepared' and checks = ? and unanswered = ?`;

/** `counts`: checks, unanswered. `due`: when, or why and since when it is parked. */
function columnsOf({ id, from, to }: CheckToSave): { counts: SqlValue[]; due: SqlValue[] } {
  switch (to.state) {
    case 'prepared':
      return { counts: [to.checks, to.unanswered], due: [to.dueAt, 'none', NEVER] };
    case 'parked':
      return { counts: [from.checks + 1, 0], due: [NEVER, to.reason, to.parkedAt] };
    default:
      throw new Error(`a check can not make ${id} ${to.state}`);
  }
}

function checkValues(item: CheckToSave): SqlValue[] {
  const { id, from, to, unansweredSince, alerted } = item;
  const { counts, due } = columnsOf(item);
  return [
    to.state,
    ...counts,
    unansweredSince ?? NEVER,
    alerted ? 1 : 0,
    ...due,
    idBytes(id),
    from.checks,
    from.unanswered,
  ];
}

/**
 * History is written for rows that moved only: a result that came too late must not say "parked" of
 * a row that is not, and a repeat after a lost reply moves nothing and so writes nothing twice.
 */
export async function saveChecks(database: Database, batch: readonly CheckToSave[]): Promise<void> {
  if (batch.length === 0) return;
  await database.transaction(async (sql) => {
    const moved: CheckToSave[] = [];
    for (const item of batch) {
      if ((await sql.run(saveCheck, checkValues(item))) === 1) moved.push(item);
    }
    await sql.insertRows(historyRows(moved));
  });
}

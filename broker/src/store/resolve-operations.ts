import type { HistoryEvent } from '@escrowmq/protocol';
import type { State } from '../domain/transaction.js';
import { historyRows } from './history.js';
import { type Database, idBytes, NEVER, type SqlValue } from './sql.js';

/** Guarded by the state that the operator saw; a verdict that came meanwhile wins. */
const moveForOperator = `
  update escrow_transaction
  set state = ?, due_at = ?, checks = ?, unanswered = ?, unanswered_since = ${NEVER}, alerted = 0,
      attempts = ?, parked_reason = 'none', parked_at = ${NEVER}
  where id = ? and state = ? and parked_reason = ?`;

/** An operator's word moves a row only to where the broker acts again. */
function columnsOf(to: State): SqlValue[] {
  if (to.state === 'prepared') return ['prepared', to.dueAt, to.checks, to.unanswered, 0];
  if (to.state === 'committed') return ['committed', to.dueAt, 0, 0, to.attempts];
  throw new Error(`no operator's action leads to ${to.state}`);
}

export async function resolve(
  database: Database,
  change: { id: string; from: State; to: State; history: HistoryEvent },
): Promise<boolean> {
  const { id, from, to, history } = change;
  const reason = from.state === 'parked' ? from.reason : 'none';
  return database.transaction(async (sql) => {
    const moved = await sql.run(moveForOperator, [
      ...columnsOf(to),
      idBytes(id),
      from.state,
      reason,
    ]);
    if (moved === 1) await sql.insertRows(historyRows([{ id, history: [history] }]));
    return moved === 1;
  });
}

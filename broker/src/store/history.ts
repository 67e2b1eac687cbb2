import type { HistoryEvent } from '@escrowmq/protocol';
import type { KeptReceipt } from '../domain/group-standing.js';
import { type Dialect, idBytes, idText, type RowsToInsert, type Sql } from './sql.js';

/** Events of transactions, ready to insert; an empty list inserts nothing. */
export function historyRows(
  entries: readonly { id: string; history: readonly HistoryEvent[] }[],
): RowsToInsert {
  return {
    table: 'escrow_history',
    columns: ['transaction_id', 'at', 'event', 'detail'],
    rows: entries.flatMap(({ id, history }) =>
      history.map(({ at, event, detail }) => [idBytes(id), at, event, JSON.stringify(detail)]),
    ),
    onDuplicate: 'fail',
  };
}

/** A check every five minutes for a day is 288 events; a view shows the newest of them. */
const HISTORY_SHOWN_MAX = 300;

export async function historyOf(sql: Sql, id: string): Promise<HistoryEvent[]> {
  const rows = await sql.all<{ at: number; event: HistoryEvent['event']; detail: string }>(
    `select at, event, detail from escrow_history where transaction_id = ?
     order by entry desc limit ${HISTORY_SHOWN_MAX}`,
    [idBytes(id)],
  );
  return rows.reverse().map(({ at, event, detail }) => ({ at, event, detail: JSON.parse(detail) }));
}

interface ReceiptRow {
  transaction_id: Uint8Array;
  message_number: number;
  consumer_group: string;
  kind: 'consumed' | 'failed';
  at: number;
  attempts: number | null;
  cause: string | null;
}

const receiptOf = (row: ReceiptRow): KeptReceipt => ({
  consumerGroup: row.consumer_group,
  message: row.message_number,
  kind: row.kind,
  at: row.at,
  ...(row.attempts === null ? {} : { attempts: row.attempts }),
  ...(row.cause === null ? {} : { cause: row.cause }),
});

/** By group and number of the message. */
export async function receiptsOf(
  sql: Sql,
  ids: readonly string[],
  dialect: Dialect,
): Promise<Map<string, KeptReceipt[]>> {
  const byId = new Map<string, KeptReceipt[]>(ids.map((id) => [id, []]));
  if (ids.length === 0) return byId;
  const { list, values } = dialect.inIds(ids);
  const rows = await sql.all<ReceiptRow>(
    `select transaction_id, message_number, consumer_group, kind, at, attempts, cause
     from escrow_receipt where transaction_id ${list}
     order by consumer_group, message_number`,
    values,
  );
  for (const row of rows) byId.get(idText(row.transaction_id))?.push(receiptOf(row));
  return byId;
}

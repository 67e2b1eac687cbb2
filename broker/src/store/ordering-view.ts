import { messageIdOf, type StateName, type WaitsFor } from '@escrowmq/protocol';
import { distinctKeys, HEAD, hex, inKeys, placesOf } from './ordering-operations.js';
import { type Dialect, idText, type Sql } from './sql.js';

/*
 * How the view of a transaction tells what its messages wait for. Read without locks, in several
 * statements: what is shown may be over by then.
 */

/** What stands at the head of a key. */
interface Head {
  transactionId: string;
  number: number;
  sequence: number;
  state: StateName;
}

interface HeadRow {
  key_id: Uint8Array;
  transaction_id: Uint8Array | null;
  message_number: number;
  sequence: number;
}

async function headsShown(
  sql: Sql,
  { byKey, inIds }: Dialect,
  keyIds: readonly Buffer[],
): Promise<Map<string, Head>> {
  const { list, values } = inKeys(distinctKeys(keyIds));
  const columns = ['transaction_id', 'message_number', 'sequence'];
  const rows = await sql.all<HeadRow>(
    `select key_id, ${columns.map((column) => `${HEAD(column, 'line.key_id')} as ${column}`).join(', ')}
     from escrow_ordering_key line ${byKey} where key_id ${list}`,
    values,
  );
  const ids = rows.flatMap(({ transaction_id: id }) => (id === null ? [] : [idText(id)]));
  if (ids.length === 0) return new Map();
  const those = inIds(ids);
  const states = await sql.all<{ id: Uint8Array; state: StateName }>(
    `select id, state from escrow_transaction where id ${those.list}`,
    those.values,
  );
  const stateOf = new Map(states.map(({ id, state }) => [idText(id), state]));
  const heads = new Map<string, Head>();
  for (const { key_id, transaction_id, message_number: number, sequence } of rows) {
    if (transaction_id === null) continue;
    const transactionId = idText(transaction_id);
    const state = stateOf.get(transactionId);
    if (state !== undefined) heads.set(hex(key_id), { transactionId, number, sequence, state });
  }
  return heads;
}

/** How the lines of a transaction's messages are shown, by the numbers of the messages. */
export async function linesShown(
  sql: Sql,
  dialect: Dialect,
  id: string,
): Promise<Map<number, { sequence: number; waitsFor?: WaitsFor }>> {
  const places = (await placesOf(sql, dialect, [id])).get(id) ?? [];
  const waiting = places.filter(({ isHead }) => !isHead).map(({ keyId }) => keyId);
  const heads = waiting.length === 0 ? undefined : await headsShown(sql, dialect, waiting);
  return new Map(
    places.map(({ number, keyId, sequence, isHead }) => {
      const head = isHead ? undefined : heads?.get(hex(keyId));
      // It may have come to the head itself meanwhile.
      if (head === undefined || head.sequence >= sequence) return [number, { sequence }];
      const { transactionId, state } = head;
      const messageId = messageIdOf(transactionId, head.number);
      const waitsFor = { transactionId, messageId, sequence: head.sequence, state };
      return [number, { sequence, waitsFor }];
    }),
  );
}

import type { CheckHandler } from '@escrowmq/producer';
import type { RowDataPacket } from 'mysql2/promise';
import type { Shards } from '../shards.js';

/**
 * WRONG ON PURPOSE, for `npm run demo -- --break`: what one writes without thinking about the race.
 * It looks whether the transaction's row is there. A local transaction that is still open, or has
 * not begun, has no row yet; "rollback" is then a guess, and when the transaction commits a moment
 * later its message is lost.
 */
export function naiveCheckHandler(shards: Shards): CheckHandler {
  return async (_headers, rawBody) => {
    const check = JSON.parse(rawBody.toString()) as { id: string; checkContext: string };
    const shard = shards.all.find(({ name }) => name === check.checkContext);
    if (shard === undefined) return { status: 503, headers: {}, body: '' };
    const [rows] = await shard.pool.query<RowDataPacket[]>(
      'select 1 from escrow_barrier where transaction_id = ?',
      [Buffer.from(check.id.replaceAll('-', ''), 'hex')],
    );
    const decision = rows.length > 0 ? 'commit' : 'rollback';
    return {
      status: 200,
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ id: check.id, decision }),
    };
  };
}

import { EscrowError } from '@escrowmq/protocol';
import type { Pool, PoolConnection, ResultSetHeader } from 'mysql2/promise';

/**
 * The table in the producer's own database that makes the answer to a check final. Its primary key
 * admits one row per transaction: `commit`, written by the local transaction itself, or `rollback`,
 * written by a check. Ids are 16 bytes, so that no collation can make two of them equal.
 *
 * Every write is a plain INSERT whose duplicate is an error. One that ignored or overwrote the
 * duplicate would let a check and a local transaction both win.
 */
export const BARRIER_TABLE_SQL = `create table if not exists escrow_barrier (
  transaction_id binary(16) not null,
  decision enum('commit', 'rollback') character set ascii collate ascii_bin not null,
  created_at datetime(3) not null comment 'UTC',
  primary key (transaction_id),
  key escrow_barrier_created_at (created_at)
) engine = InnoDB`;

const DAY_MS = 24 * 60 * 60 * 1000;

/** How long barrier rows are kept when nobody says otherwise: a week of outage is survived. */
export const BARRIER_RETENTION_MS = 7 * DAY_MS;

/** Checks stop inserting a day before rows are purged: room for clocks that disagree. */
export const BARRIER_RETENTION_SLACK_MS = DAY_MS;

/** Rows per statement, so that a purge holds few locks and never for long. */
const PURGE_ROWS_MAX = 1_000;

/**
 * Creates the barrier table where it is missing. It must stand in the database that the local
 * transactions write to. Needs the right to create tables; run `BARRIER_TABLE_SQL` in a migration
 * where the service has none.
 */
export async function ensureBarrierTable(pool: Pool): Promise<void> {
  await pool.query(BARRIER_TABLE_SQL);
}

/**
 * Deletes barrier rows older than `olderThanMs` by the database's clock, a thousand at a time, and
 * returns how many. Run it daily.
 *
 * @param olderThanMs milliseconds, at least the `barrierRetentionMs` of the check handlers: a row
 *   purged earlier lets a late check roll back what was committed. @default 7 days
 * @throws {EscrowError} INVALID_CONFIGURATION when it is two days or less
 */
export async function purgeBarrier(
  pool: Pool,
  olderThanMs: number = BARRIER_RETENTION_MS,
): Promise<number> {
  if (!(olderThanMs > 2 * BARRIER_RETENTION_SLACK_MS)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `barrier rows may be purged after more than two days, not after ${olderThanMs} ms: checks still need them`,
    );
  }
  for (let purged = 0; ; ) {
    const [result] = await pool.query<ResultSetHeader>(
      `delete from escrow_barrier where created_at < utc_timestamp(3) - interval ? second
       order by created_at limit ${PURGE_ROWS_MAX}`,
      [Math.ceil(olderThanMs / 1000)],
    );
    purged += result.affectedRows;
    if (result.affectedRows < PURGE_ROWS_MAX) return purged;
  }
}

/**
 * Writes a transaction's row. Takes a connection and not a pool: for `commit` it must be the one
 * that the local transaction is open on.
 */
export async function insertBarrier(
  connection: PoolConnection,
  id: string,
  decision: 'commit' | 'rollback',
): Promise<void> {
  await connection.query(
    'insert into escrow_barrier (transaction_id, decision, created_at) values (?, ?, utc_timestamp(3))',
    [barrierId(id), decision],
  );
}

/** The 16 bytes of an id. */
export function barrierId(id: string): Buffer {
  return Buffer.from(id.replaceAll('-', ''), 'hex');
}

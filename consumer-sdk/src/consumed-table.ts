import { EscrowError } from '@escrowmq/protocol';
import type { Pool, ResultSetHeader } from 'mysql2/promise';

/**
 * The table behind `once`, in the consumer's own database: which messages each consumer group has
 * applied. For MySQL and MariaDB; run it as a migration, or call `ensureConsumedTable`.
 *
 * Ids are ASCII and compared byte by byte: under a common collation `abc` and `ABC` would be one
 * message, and the second would be lost as a duplicate. The primary key grows at its end, because
 * message ids begin with the time.
 */
export const CONSUMED_TABLE_SQL = `create table if not exists escrow_consumed (
  consumer_group varchar(64) character set ascii collate ascii_bin not null,
  message_id varchar(64) character set ascii collate ascii_bin not null,
  consumed_at bigint unsigned not null comment 'UTC milliseconds of this database',
  primary key (consumer_group, message_id),
  key escrow_consumed_by_time (consumed_at)
) engine = InnoDB`;

/** UTC milliseconds of the database: one clock for writing and for purging. */
const NOW_MS = 'cast(unix_timestamp(now(3)) * 1000 as unsigned)';

export const INSERT_CONSUMED = `insert into escrow_consumed (consumer_group, message_id, consumed_at)
values (?, ?, ${NOW_MS})`;

/**
 * A message may come again for as long as its broker knows it: 30 days of tombstones after it was
 * finished. A row that goes earlier lets a late repeat be applied twice; a week is the margin.
 */
const RETENTION_MS_DEFAULT = 37 * 24 * 60 * 60 * 1000;

/** Uses the index on time; small, so that a purge never holds many row locks. */
const PURGE_BATCH_ROWS = 1_000;
const PURGE_CONSUMED = `delete from escrow_consumed
where consumed_at < ${NOW_MS} - ? order by consumed_at limit ${PURGE_BATCH_ROWS}`;

/** Creates `escrow_consumed` when it is not there; changes nothing when it is. */
export async function ensureConsumedTable(pool: Pool): Promise<void> {
  await pool.query(CONSUMED_TABLE_SQL);
}

/**
 * Deletes the rows of messages applied longer ago than that, in small batches. Call it now and
 * then, from one instance or from many. Less than the broker's 30 days risks applying twice.
 *
 * @param olderThanMs @default 37 days
 * @returns how many rows were deleted
 * @throws EscrowError INVALID_CONFIGURATION when `olderThanMs` is not a whole number from 0 on
 * @example setInterval(() => void purgeConsumed(pool), 3_600_000).unref();
 */
export async function purgeConsumed(
  pool: Pool,
  olderThanMs: number = RETENTION_MS_DEFAULT,
): Promise<number> {
  if (!Number.isSafeInteger(olderThanMs) || olderThanMs < 0) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `olderThanMs must be a whole number of ms from 0 on, got ${olderThanMs}`,
    );
  }
  let deleted = 0;
  for (;;) {
    const [{ affectedRows }] = await pool.query<ResultSetHeader>(PURGE_CONSUMED, [olderThanMs]);
    deleted += affectedRows;
    if (affectedRows < PURGE_BATCH_ROWS) return deleted;
  }
}

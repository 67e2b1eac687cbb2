import {
  type DatabaseInput,
  databaseOf,
  deleteRowsSql,
  type Housekeeping,
  type LocalDatabase,
  PORTION_ROWS_MAX,
  repeatedSession,
  rowsOf,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { type Keeping, keepTable } from '../keep-table.js';
import { markPurged } from './barrier-mark.js';
import {
  BARRIER_RETENTION_MS,
  BARRIER_RETENTION_SLACK_MS,
  CALLED_FOR_KEPT_MS,
  notedRetentionMs,
} from './barrier-retention.js';
import { BARRIER_SQL } from './barrier-sql.js';

/** What the SDK does beside the transactions of its callers is not what they wait for. */
const LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };

/**
 * The mark is this far behind at most while a long purge goes on: a small part of the day by which checks
 * keep away from it.
 */
const MARK_AGAIN_MS = 60 * 60 * 1000;

/**
 * Deletes barrier rows older than `olderThanMs` by the database's clock, a thousand at a time, and
 * returns how many. `ensureBarrierTable` and `startHousekeeping` do it by themselves.
 *
 * A check that asks for a transaction that old is answered unknown from then on, whatever its handler is
 * set to: the table says up to when it was purged.
 *
 * @param olderThanMs milliseconds, at least the `barrierRetentionMs` of the check handlers, or those
 *   that they could still answer are not answered. @default 7 days
 * @throws {EscrowError} INVALID_CONFIGURATION when it is two days or less
 */
export async function purgeBarrier(
  database: DatabaseInput,
  olderThanMs: number = BARRIER_RETENTION_MS,
): Promise<number> {
  if (!(olderThanMs > 2 * BARRIER_RETENTION_SLACK_MS)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `barrier rows may be purged after more than two days, not after ${olderThanMs} ms: checks still need them`,
    );
  }
  return rowsOf(portions(databaseOf(database), olderThanMs));
}

/** Rows are kept for as long as any handler of this process wants them, however short that was set. */
export function keepBarrier(database: LocalDatabase<unknown>, keeping?: Keeping): Housekeeping {
  return keepTable(
    {
      database,
      table: 'escrow_barrier',
      keptMsDefault: CALLED_FOR_KEPT_MS,
      portions: (keptMs) => portions(database, Math.max(keptMs, notedRetentionMs(database))),
    },
    keeping,
  );
}

async function* portions(
  database: LocalDatabase<unknown>,
  olderThanMs: number,
): AsyncGenerator<number, void> {
  const olderThanSeconds = Math.ceil(olderThanMs / 1000);
  let markedAt: number | undefined;
  for (;;) {
    const ids = await oldIds(database, olderThanSeconds);
    if (ids.length > 0) {
      if (markedAt === undefined || performance.now() - markedAt > MARK_AGAIN_MS) {
        await markPurged(database, olderThanMs, LIMITS);
        markedAt = performance.now();
      }
      await deleteRows(database, ids);
    }
    yield ids.length;
    if (ids.length < PORTION_ROWS_MAX) return;
  }
}

async function oldIds(
  database: LocalDatabase<unknown>,
  olderThanSeconds: number,
): Promise<string[]> {
  const { selectOld } = BARRIER_SQL[database.dialect];
  const values = [olderThanSeconds, PORTION_ROWS_MAX];
  const rows = await repeatedSession(
    database,
    (executor) => executor.select(selectOld, { id: 'text' }, values),
    LIMITS,
  );
  return rows.map(({ id }) => id);
}

async function deleteRows(database: LocalDatabase<unknown>, ids: readonly string[]): Promise<void> {
  const { dialect } = database;
  const sql = deleteRowsSql(dialect, {
    table: 'escrow_barrier',
    key: [{ column: 'transaction_id', value: BARRIER_SQL[dialect].id }],
    count: ids.length,
  });
  await repeatedSession(database, (executor) => executor.execute(sql, ids), LIMITS);
}

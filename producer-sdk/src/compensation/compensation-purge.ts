import type { Executor, Housekeeping, LocalDatabase, SqlValue } from '@escrowmq/database';
import {
  type DatabaseInput,
  databaseOf,
  deleteRowsSql,
  inPortions,
  PORTION_ROWS_MAX,
  rowsOf,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { type Keeping, keepTable } from '../keep-table.js';
import {
  BARRIER_RETENTION_MS,
  CALLED_FOR_KEPT_MS,
  notedRetentionMs,
} from '../local/barrier-retention.js';
import { COMPENSATION_SQL } from './compensation-sql.js';

/**
 * Deletes the rows of compensations that were done longer ago than that by the database's clock, a
 * thousand at a time, and returns how many. `ensureCompensationTable` and `startHousekeeping` do it by
 * themselves.
 *
 * A call for a transaction that old is not answered any more, so nothing can be done twice: a row is
 * younger than its transaction.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @param olderThanMs milliseconds, at least the `barrierRetentionMs` of the compensation handlers: of
 *   a row purged earlier the broker's next call runs the compensation again. @default 7 days
 * @throws {EscrowError} INVALID_CONFIGURATION when it is less than the default of that, 7 days
 */
export async function purgeCompensations(
  database: DatabaseInput,
  olderThanMs: number = BARRIER_RETENTION_MS,
): Promise<number> {
  if (!(olderThanMs >= BARRIER_RETENTION_MS)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `rows of escrow_compensated may be purged after ${BARRIER_RETENTION_MS} ms (barrierRetentionMs) or more, not after ${olderThanMs} ms: the broker may call once more, and without its row a compensation would run twice`,
    );
  }
  return rowsOf(portions(databaseOf(database), olderThanMs));
}

/** Rows are kept for as long as any handler of this process wants them, however short that was set. */
export function keepCompensations(
  database: LocalDatabase<unknown>,
  keeping?: Keeping,
): Housekeeping {
  return keepTable(
    {
      database,
      table: 'escrow_compensated',
      keptMsDefault: CALLED_FOR_KEPT_MS,
      portions: (keptMs) => portions(database, Math.max(keptMs, notedRetentionMs(database))),
    },
    keeping,
  );
}

const portions = (database: LocalDatabase<unknown>, olderThanMs: number) =>
  inPortions(database, (executor) => purgeOnce(executor, database, olderThanMs));

async function purgeOnce(
  executor: Executor,
  { dialect }: LocalDatabase<unknown>,
  olderThanMs: number,
): Promise<number> {
  const { selectOld, key } = COMPENSATION_SQL[dialect];
  // Only the row's own time says that it may go. The id spares the search what is younger, because
  // the primary key begins with it, and an id is older than its row.
  const columns = { id: 'text', name: 'text', number: 'number' } as const;
  const rows = await executor.select(selectOld, columns, [
    firstIdOf(Date.now() - olderThanMs),
    Math.ceil(olderThanMs / 1000),
    PORTION_ROWS_MAX,
  ]);
  if (rows.length === 0) return 0;
  await executor.execute(
    deleteRowsSql(dialect, { table: 'escrow_compensated', key, count: rows.length }),
    rows.flatMap(({ id, name, number }) => [id, name, number]),
  );
  return rows.length;
}

/** How the ids begin that were made at that time: with its ms, in the 48 bits of a UUIDv7. */
function firstIdOf(time: number): SqlValue {
  return Math.max(0, Math.floor(time)).toString(16).padStart(12, '0').padEnd(32, '0');
}

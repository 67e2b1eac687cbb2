import type { Dialect, LocalDatabase, TransactionLimits } from '@escrowmq/database';
import {
  type DatabaseInput,
  databaseOf,
  type EnsureOptions,
  ensureTable,
  inPortions,
  PORTION_ROWS_MAX,
  parseEnsureOptions,
  repeatedSession,
  rowsOf,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { idValue, textValue } from '../local/barrier-sql.js';
import { keepOutbox } from './outbox-purge.js';
import { OUTBOX_STATEMENTS } from './outbox-sql.js';

/**
 * The statements that create the outbox table, by dialect, for a migration. It must stand in the
 * database (on PostgreSQL: in the schema that the search path finds first) that the local
 * transactions write to.
 */
export const OUTBOX_TABLE_SQL: Readonly<Record<Dialect, string>> = {
  mysql: OUTBOX_STATEMENTS.mysql.createTable.join(';\n'),
  postgres: OUTBOX_STATEMENTS.postgres.createTable.join(';\n'),
  sqlite: OUTBOX_STATEMENTS.sqlite.createTable.join(';\n'),
};

/** What the SDK does beside the transactions of its callers is not what they wait for. */
export const OUTBOX_LIMITS: TransactionLimits = {
  connectionTimeoutMs: 10_000,
  commitTimeoutMs: 10_000,
};

/**
 * Creates the outbox table where it is missing. Where it is there, no right to create tables is needed; where
 * it is not and the service has none, run `OUTBOX_TABLE_SQL` in a migration.
 *
 * From then on this process deletes rows that were sent long ago, as `startHousekeeping` does.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureOutboxTable(
  database: DatabaseInput,
  options: EnsureOptions = {},
): Promise<void> {
  const { housekeeping } = parseEnsureOptions(options, 'ensureOutboxTable');
  await ensureTable(database, {
    name: 'escrow_outbox',
    columns: [
      ...['transaction_id', 'state', 'due_at', 'created_at', 'producer_group'],
      ...['bytes', 'operation', 'lease_token', 'cause'],
    ],
    statements: {
      mysql: OUTBOX_STATEMENTS.mysql.createTable,
      postgres: OUTBOX_STATEMENTS.postgres.createTable,
      sqlite: OUTBOX_STATEMENTS.sqlite.createTable,
    },
  });
  if (housekeeping) keepOutbox(databaseOf(database));
}

/** Puts everything that is parked back among what is to be sent; returns how many. */
export async function unparkAll(
  database: LocalDatabase<unknown>,
  producerGroup: string,
): Promise<number> {
  const { selectParked, unpark } = OUTBOX_STATEMENTS[database.dialect];
  const portions = inPortions(database, async (executor) => {
    const rows = await executor.select(selectParked, { id: 'text' }, [
      producerGroup,
      PORTION_ROWS_MAX,
    ]);
    const ids = rows.map(({ id }) => id);
    if (ids.length > 0) await executor.execute(unpark(ids.length), ids);
    return ids.length;
  });
  return rowsOf(portions);
}

/**
 * What the broker has taken. Guarded, and in the order of the ids, so that two who mark the same
 * rows do not wait for each other in a circle.
 */
export async function markSent(
  database: LocalDatabase<unknown>,
  ids: readonly string[],
): Promise<void> {
  if (ids.length === 0) return;
  const values = ids.map(idValue).sort();
  await repeatedSession(
    database,
    (executor) =>
      executor.execute(OUTBOX_STATEMENTS[database.dialect].markSent(ids.length), values),
    OUTBOX_LIMITS,
  );
}

/** Parks a row that was not sent, with the reason. */
export async function park(
  database: LocalDatabase<unknown>,
  id: string,
  cause: string,
): Promise<void> {
  const { dialect } = database;
  await repeatedSession(
    database,
    (executor) =>
      executor.execute(OUTBOX_STATEMENTS[dialect].park, [textValue(dialect, cause), idValue(id)]),
    OUTBOX_LIMITS,
  );
}

export function missingOutbox(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_outbox; create it with ensureOutboxTable(database) or OUTBOX_TABLE_SQL',
    { cause },
  );
}

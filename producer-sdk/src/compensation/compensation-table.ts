import type { ClaimOn, Dialect, SqlValue } from '@escrowmq/database';
import {
  type DatabaseInput,
  databaseOf,
  type EnsureOptions,
  ensureTable,
  parseEnsureOptions,
} from '@escrowmq/database';
import type { CompensationRequest } from '@escrowmq/protocol';
import { EscrowError } from '@escrowmq/protocol';
import { idValue } from '../local/barrier-sql.js';
import { keepCompensations } from './compensation-purge.js';
import { COMPENSATION_SQL as SQL } from './compensation-sql.js';

/**
 * The statement that creates the table of compensations, by dialect, for a migration. It must stand
 * in the database (on PostgreSQL: in the schema that the search path finds first) that compensations
 * write to.
 */
export const COMPENSATION_TABLE_SQL: Readonly<Record<Dialect, string>> = {
  mysql: SQL.mysql.createTable,
  postgres: SQL.postgres.createTable,
  sqlite: SQL.sqlite.createTable,
};

/**
 * Creates the table of compensations where it is missing. Where it is there, no right to create tables is needed; where
 * it is not and the service has none, run `COMPENSATION_TABLE_SQL` in a migration.
 *
 * From then on this process deletes rows that no call asks for any more, as `startHousekeeping` does.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureCompensationTable(
  database: DatabaseInput,
  options: EnsureOptions = {},
): Promise<void> {
  const { housekeeping } = parseEnsureOptions(options, 'ensureCompensationTable');
  await ensureTable(database, {
    name: 'escrow_compensated',
    columns: ['transaction_id', 'consumer_group', 'message_number', 'created_at'],
    statements: {
      mysql: [SQL.mysql.createTable],
      postgres: [SQL.postgres.createTable],
      sqlite: [SQL.sqlite.createTable],
    },
  });
  if (housekeeping) keepCompensations(databaseOf(database));
}

const keyValues = ({ id, consumerGroup, message }: CompensationRequest): SqlValue[] => [
  idValue(id),
  consumerGroup,
  message,
];

/** @throws the layer's error, a duplicate key included */
export async function insertCompensated(
  { executor, dialect }: ClaimOn,
  request: CompensationRequest,
): Promise<void> {
  await executor.execute(SQL[dialect].insert, keyValues(request));
}

/** Whether the row is there and durable. */
export async function isCompensated(
  { executor, dialect }: ClaimOn,
  request: CompensationRequest,
): Promise<boolean> {
  const rows = await executor.select(SQL[dialect].lock, { done: 'number' }, keyValues(request));
  return rows.length > 0;
}

export function missingCompensationTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_compensated; create it with ensureCompensationTable(database) or COMPENSATION_TABLE_SQL',
    { cause },
  );
}

import { EscrowError } from '@escrowmq/protocol';
import { type DatabaseInput, databaseOf } from './adapters/database-of.js';
import type { Dialect, LocalDatabase } from './database.js';
import { meaningOf } from './server-errors.js';

/** A table that the SDK keeps in a service's own database. */
export interface TableToEnsure {
  /** Its name, without a schema. */
  name: string;
  /** Those that the SDK uses: a table without one of them is not the right one. */
  columns: readonly string[];
  /** One statement each, harmless where the table is there. */
  statements: Readonly<Record<Dialect, readonly string[]>>;
}

/** What the SDK does beside the transactions of its callers is not what they wait for. */
const LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };

/**
 * Creates a table where it is missing. Where it is there, no right to create one is needed: MySQL and
 * PostgreSQL refuse `create table if not exists` to who has not that right, whether or not there is
 * anything to create.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureTable(database: DatabaseInput, table: TableToEnsure): Promise<void> {
  const found = databaseOf(database);
  try {
    await found.session(async (executor) => {
      for (const sql of table.statements[found.dialect]) await executor.execute(sql);
    }, LIMITS);
  } catch (error) {
    if (meaningOf(error) !== 'refused') throw error;
    if (!(await isThere(found, table))) throw notPermitted(table, found.dialect, error);
  }
}

/** In a session of its own, which an error ends: one of PostgreSQL is a transaction. */
async function isThere(
  database: LocalDatabase<unknown>,
  { name, columns }: TableToEnsure,
): Promise<boolean> {
  const named = columns.map((column) => `${column} is null`).join(' or ');
  const sql = `select 1 as found from ${name} where 1 = 0 and (${named})`;
  try {
    await database.session((executor) => executor.select(sql, { found: 'number' }), LIMITS);
    return true;
  } catch (error) {
    if (meaningOf(error) === undefined) throw error;
    return false;
  }
}

function notPermitted(table: TableToEnsure, dialect: Dialect, cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    `the user of the database may not create the table ${table.name}; run this as one that may, and ` +
      `grant the service SELECT, INSERT, UPDATE and DELETE on it:\n${table.statements[dialect].join(';\n')};`,
    { cause },
  );
}

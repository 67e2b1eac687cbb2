import { randomUUID } from 'node:crypto';
import type { Dialect, Executor, LocalDatabase, TransactionLimits } from '@escrowmq/database';
import {
  type DatabaseInput,
  databaseOf,
  type EnsureOptions,
  ensureTable,
  meaningOf,
  parseEnsureOptions,
  repeatedSession,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { keepBarrier } from './barrier-purge.js';
import { BARRIER_COLUMNS, BARRIER_SQL, idValue, storedText, textValue } from './barrier-sql.js';

/**
 * The statements that create the barrier table, by dialect, for a migration. It must stand in the
 * database (on PostgreSQL: in the schema that the search path finds first) that the local
 * transactions write to.
 */
export const BARRIER_TABLE_SQL: Readonly<Record<Dialect, string>> = {
  mysql: BARRIER_SQL.mysql.createTable.join(';\n'),
  postgres: BARRIER_SQL.postgres.createTable.join(';\n'),
  sqlite: BARRIER_SQL.sqlite.createTable.join(';\n'),
};

/**
 * Creates the barrier table where it is missing. Where it is there, no right to create tables is needed; where
 * it is not and the service has none, run `BARRIER_TABLE_SQL` in a migration.
 *
 * From then on this process deletes rows that no check asks for any more, as `startHousekeeping` does.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureBarrierTable(
  database: DatabaseInput,
  options: EnsureOptions = {},
): Promise<void> {
  const { housekeeping } = parseEnsureOptions(options, 'ensureBarrierTable');
  await ensureTable(database, {
    name: 'escrow_barrier',
    columns: ['transaction_id', 'decision', 'created_at', 'data'],
    statements: {
      mysql: BARRIER_SQL.mysql.createTable,
      postgres: BARRIER_SQL.postgres.createTable,
      sqlite: BARRIER_SQL.sqlite.createTable,
    },
  });
  if (housekeeping) keepBarrier(databaseOf(database));
}

/**
 * Writes a transaction's row. For `commit` the executor must be the one of the local transaction.
 *
 * @throws the layer's error, a duplicate key included
 */
export async function insertBarrier(
  on: { executor: Executor; dialect: Dialect },
  id: string,
  decision: 'commit' | 'rollback',
): Promise<void> {
  await on.executor.execute(BARRIER_SQL[on.dialect].insert, [idValue(id), decision]);
}

/** Keeps the data that the local transaction supplied, so that a check can supply them as well. */
export async function setBarrierData(
  on: { executor: Executor; dialect: Dialect },
  id: string,
  data: string,
): Promise<void> {
  await on.executor.execute(BARRIER_SQL[on.dialect].setData, [
    textValue(on.dialect, data),
    idValue(id),
  ]);
}

/** An id that no transaction has: its row says which barrier table this is. */
const IDENTITY_ROW = '00000000-0000-0000-0000-000000000000';

/**
 * The identity of a barrier table: a random text in a row of its own, made by whoever asks first.
 * A check that reached another database than the local transaction would find no row there and roll
 * back what was committed; by the identity it notices. It moves with the table through failover,
 * dump and restore; two databases made from one dump have the same and can't be told apart.
 *
 * @throws the layer's error; INVALID_CONFIGURATION when the table is missing
 */
async function barrierIdentity(
  database: LocalDatabase<unknown>,
  limits: TransactionLimits,
): Promise<string> {
  const { dialect } = database;
  const { insertKept } = BARRIER_SQL[dialect];
  const values = [idValue(IDENTITY_ROW), textValue(dialect, randomUUID())];
  const found = await readIdentity(database, limits);
  if (found !== undefined) return found;
  try {
    await repeatedSession(database, (executor) => executor.execute(insertKept, values), limits);
  } catch (error) {
    // Somebody else was faster; whatever else went wrong shows in the next line.
    if (meaningOf(error) !== 'duplicate key') throw error;
  }
  const made = await readIdentity(database, limits);
  if (made === undefined) throw new Error('the identity of the barrier table is gone again');
  return made;
}

/** Identities by database, each asked for once. */
export interface BarrierIdentities {
  /** Without waiting; `undefined` while it was not asked for. */
  known(database: LocalDatabase<unknown>): string | undefined;
  /** @throws like `barrierIdentity`; then the next call asks again */
  of(database: LocalDatabase<unknown>): Promise<string>;
}

/** @param limitMs for one statement, and for the connection before it */
export function createBarrierIdentities(limitMs: number): BarrierIdentities {
  const limits = { connectionTimeoutMs: limitMs, commitTimeoutMs: limitMs };
  const found = new WeakMap<object, string>();
  const asked = new WeakMap<object, Promise<string>>();
  async function ask(database: LocalDatabase<unknown>): Promise<string> {
    try {
      const identity = await barrierIdentity(database, limits);
      found.set(database, identity);
      return identity;
    } finally {
      asked.delete(database);
    }
  }
  return {
    known: (database) => found.get(database),
    of(database) {
      const underWay = asked.get(database) ?? ask(database);
      asked.set(database, underWay);
      return underWay;
    },
  };
}

async function readIdentity(
  database: LocalDatabase<unknown>,
  limits: TransactionLimits,
): Promise<string | undefined> {
  const { dialect } = database;
  const { read } = BARRIER_SQL[dialect];
  try {
    const [row] = await repeatedSession(
      database,
      (executor) => executor.select(read, BARRIER_COLUMNS, [idValue(IDENTITY_ROW)]),
      limits,
    );
    return storedText(dialect, row?.data);
  } catch (error) {
    throw meaningOf(error) === 'no such table' ? missingTable(error) : error;
  }
}

export function missingTable(cause: unknown): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    'the database has no table escrow_barrier; create it with ensureBarrierTable(database) or BARRIER_TABLE_SQL',
    { cause },
  );
}

import type { Dialect, Executor, LocalDatabase, TransactionLimits } from '@escrowmq/database';
import { type DatabaseInput, databaseOf, ensureTable, repeatedSession } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { idValue, textValue } from '../local/barrier-sql.js';
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

const HOUR_MS = 60 * 60 * 1000;
const DAY_MS = 24 * HOUR_MS;

/** For how long after its start the outcome of a local transaction may be asked for. */
export const SETTLE_AGE_MS_MAX = 12 * HOUR_MS;

/** Twice that, as the two are measured by clocks that may disagree. */
const RETENTION_MS_MIN = 2 * SETTLE_AGE_MS_MAX;
const RETENTION_MS = 7 * DAY_MS;

/** Rows per statement, so that a purge holds few locks and never for long. */
const ROWS_PER_STATEMENT_MAX = 1_000;

/**
 * Creates the outbox table where it is missing. Where it is there, no right to create tables is needed; where
 * it is not and the service has none, run `OUTBOX_TABLE_SQL` in a migration.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION with the statements to run, where the user may not
 */
export async function ensureOutboxTable(database: DatabaseInput): Promise<void> {
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
}

/**
 * Deletes the rows of messages that were sent more than `olderThanMs` ago by the database's clock,
 * a thousand at a time, and returns how many. What is not sent yet or parked is never deleted. Run
 * it daily.
 *
 * @param olderThanMs milliseconds @default 7 days
 * @throws {EscrowError} INVALID_CONFIGURATION when it is less than a day: until then the row may
 *   have to say what became of a COMMIT that got no answer
 */
export async function purgeOutbox(
  database: DatabaseInput,
  olderThanMs: number = RETENTION_MS,
): Promise<number> {
  if (!(olderThanMs >= RETENTION_MS_MIN)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `rows of the outbox may be purged after a day or more, not after ${olderThanMs} ms: until then one may still have to say what became of its transaction`,
    );
  }
  const found = databaseOf(database);
  const sent = await purgeState(found, 'sent', olderThanMs);
  return sent + (await purgeState(found, 'void', olderThanMs));
}

async function purgeState(
  database: LocalDatabase<unknown>,
  state: 'sent' | 'void',
  olderThanMs: number,
): Promise<number> {
  const { selectFinished, deleteFinished } = OUTBOX_STATEMENTS[database.dialect];
  return inPortions(database, async (executor) => {
    const values = [state, Math.ceil(olderThanMs), ROWS_PER_STATEMENT_MAX];
    const ids = idsIn(await executor.select(selectFinished, ID, values));
    if (ids.length > 0) await executor.execute(deleteFinished(ids.length), ids);
    return ids.length;
  });
}

/** Puts everything that is parked back among what is to be sent; returns how many. */
export async function unparkAll(
  database: LocalDatabase<unknown>,
  producerGroup: string,
): Promise<number> {
  const { selectParked, unpark } = OUTBOX_STATEMENTS[database.dialect];
  return inPortions(database, async (executor) => {
    const values = [producerGroup, ROWS_PER_STATEMENT_MAX];
    const ids = idsIn(await executor.select(selectParked, ID, values));
    if (ids.length > 0) await executor.execute(unpark(ids.length), ids);
    return ids.length;
  });
}

/** @returns the sum of what the portions returned; the last one is not full */
async function inPortions(
  database: LocalDatabase<unknown>,
  portion: (executor: Executor) => Promise<number>,
): Promise<number> {
  for (let total = 0; ; ) {
    const rows = await repeatedSession(database, portion, OUTBOX_LIMITS);
    total += rows;
    if (rows < ROWS_PER_STATEMENT_MAX) return total;
  }
}

const ID = { id: 'text' } as const;

const idsIn = (rows: { id: string }[]): string[] => rows.map(({ id }) => id);

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

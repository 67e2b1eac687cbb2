import {
  type DatabaseInput,
  databaseOf,
  type Executor,
  type Housekeeping,
  inPortions,
  type LocalDatabase,
  PORTION_ROWS_MAX,
  rowsOf,
} from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { type Keeping, keepTable } from '../keep-table.js';
import { OUTBOX_STATEMENTS } from './outbox-sql.js';

const HOUR_MS = 60 * 60 * 1000;
const DAY_MS = 24 * HOUR_MS;

/** For how long after its start the outcome of a local transaction may be asked for. */
export const SETTLE_AGE_MS_MAX = 12 * HOUR_MS;

/** Twice that, as the two are measured by clocks that may disagree. */
const OUTBOX_KEPT_MS_MIN = 2 * SETTLE_AGE_MS_MAX;
export const OUTBOX_KEPT_MS = 7 * DAY_MS;

/** What rows have to be kept for. */
export const OUTBOX_KEPT_LEAST = {
  ms: OUTBOX_KEPT_MS_MIN,
  why: 'until then a row may still have to say what became of its transaction',
};

/**
 * Deletes the rows of messages that were sent more than `olderThanMs` ago by the database's clock,
 * a thousand at a time, and returns how many. What is not sent yet or parked is never deleted.
 * `ensureOutboxTable` and `startHousekeeping` do it by themselves.
 *
 * @param olderThanMs milliseconds @default 7 days
 * @throws {EscrowError} INVALID_CONFIGURATION when it is less than a day: until then the row may
 *   have to say what became of a COMMIT that got no answer
 */
export async function purgeOutbox(
  database: DatabaseInput,
  olderThanMs: number = OUTBOX_KEPT_MS,
): Promise<number> {
  if (!(olderThanMs >= OUTBOX_KEPT_MS_MIN)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `rows of the outbox may be purged after a day or more, not after ${olderThanMs} ms: until then one may still have to say what became of its transaction`,
    );
  }
  return rowsOf(portions(databaseOf(database), olderThanMs));
}

export function keepOutbox(database: LocalDatabase<unknown>, keeping?: Keeping): Housekeeping {
  return keepTable(
    {
      database,
      table: 'escrow_outbox',
      keptMsDefault: OUTBOX_KEPT_MS,
      portions: (keptMs) => portions(database, keptMs),
    },
    keeping,
  );
}

async function* portions(
  database: LocalDatabase<unknown>,
  olderThanMs: number,
): AsyncGenerator<number, void> {
  for (const state of ['sent', 'void'] as const) {
    yield* inPortions(database, (executor) => purgeOnce(executor, database, state, olderThanMs));
  }
}

async function purgeOnce(
  executor: Executor,
  { dialect }: LocalDatabase<unknown>,
  state: 'sent' | 'void',
  olderThanMs: number,
): Promise<number> {
  const { selectFinished, deleteFinished } = OUTBOX_STATEMENTS[dialect];
  const values = [state, Math.ceil(olderThanMs), PORTION_ROWS_MAX];
  const rows = await executor.select(selectFinished, { id: 'text' }, values);
  const ids = rows.map(({ id }) => id);
  if (ids.length > 0) await executor.execute(deleteFinished(ids.length), ids);
  return ids.length;
}

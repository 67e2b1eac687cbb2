import type { LocalDatabase, OpenTransaction } from '@escrowmq/database';
import { callInside, type Deadline, ENDINGS, meaningOf, within } from '@escrowmq/database';
import { type CompensationRequest, EscrowError } from '@escrowmq/protocol';
import { insertCompensated, missingCompensationTable } from './compensation-table.js';

/**
 * Runs a compensation once: the row that says so and what the callback does are one transaction of
 * the producer's database. The row comes first, so that of two calls at a time the second waits for
 * the first, and then finds it done or does it itself.
 *
 * A crash before COMMIT leaves nothing, and the broker calls again. After COMMIT, or when its answer
 * is lost: the next call finds the row, or finds none and runs it.
 */
export interface Compensating<Tx> {
  database: LocalDatabase<Tx>;
  request: CompensationRequest;
  compensate(tx: Tx, request: CompensationRequest): Promise<unknown>;
  /** For all of it; what is not committed then is rolled back. */
  deadline: Deadline;
  /** The broker has been told that it is not done. A timer may be early by a millisecond. */
  isGivenUp(): boolean;
}

/** The row is there: the transaction that is open now is rolled back. */
class Repeated extends Error {}

/**
 * @returns `'repeated'` when it was done before; `compensate` is not called then
 * @throws whatever `compensate` or the database threw: it is not done, or nobody knows
 * @throws {EscrowError} TRANSACTION_MISUSED, DATABASE_UNAVAILABLE, INVALID_CONFIGURATION
 */
export async function compensateOnce<Tx>(
  compensating: Compensating<Tx>,
): Promise<'run' | 'repeated'> {
  const { database, deadline } = compensating;
  const limitMs = Math.max(1, deadline.leftMs);
  try {
    await database.transaction((open) => runInside(compensating, open), {
      connectionTimeoutMs: limitMs,
      commitTimeoutMs: limitMs,
    });
    return 'run';
  } catch (error) {
    if (error instanceof Repeated) return 'repeated';
    throw error;
  }
}

/** From the row up to COMMIT, which follows when this has resolved. */
async function runInside<Tx>(
  compensating: Compensating<Tx>,
  open: OpenTransaction<Tx>,
): Promise<void> {
  const { request, compensate } = compensating;
  await claim(compensating, open);
  try {
    await callInside(open, (tx) => compensate(tx, request), {
      inTime: (called) => inTime(compensating, called),
      misused: (mistake) => misused(compensating, mistake),
    });
    // The next call does it.
    if (compensating.isGivenUp() || compensating.deadline.hasPassed) throw tooLate(compensating);
    if (await inTime(compensating, open.guard.holds())) return;
  } catch (error) {
    if (await open.guard.isUndone()) throw error;
    throw misused(
      compensating,
      `it failed, and its transaction was lost or had ended by then: ${ENDINGS} may have made a part of it durable`,
      error,
    );
  }
  throw misused(compensating, `its transaction ended inside its callback: ${ENDINGS}`);
}

async function claim<Tx>(compensating: Compensating<Tx>, open: OpenTransaction<Tx>): Promise<void> {
  const { database, request } = compensating;
  const { executor } = open;
  const { dialect } = database;
  const claimed = insertCompensated({ executor, dialect }, request).then(() => open.guard.arm());
  try {
    await inTime(compensating, claimed);
  } catch (error) {
    const meaning = meaningOf(error);
    if (meaning === 'duplicate key') throw new Repeated();
    throw meaning === 'no such table' ? missingCompensationTable(error) : error;
  }
}

function inTime<Tx, T>(compensating: Compensating<Tx>, work: Promise<T>): Promise<T> {
  return within(work, Math.max(1, compensating.deadline.leftMs), {
    error: () => tooLate(compensating),
  });
}

function tooLate<Tx>({ deadline }: Compensating<Tx>): EscrowError {
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `it did not end within ${deadline.limitMs} ms (answerTimeoutMs)`,
  );
}

function misused<Tx>({ request }: Compensating<Tx>, mistake: string, cause?: unknown): EscrowError {
  const { id, message, consumerGroup } = request;
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `compensation of message ${message} of ${id} for ${consumerGroup}: ${mistake}`,
    { cause },
  );
}

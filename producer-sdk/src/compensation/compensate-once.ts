import type { ClaimOn, ClaimOutcome, Deadline, LocalDatabase } from '@escrowmq/database';
import { ENDINGS, meaningOf, runClaimed } from '@escrowmq/database';
import { type CompensationRequest, EscrowError } from '@escrowmq/protocol';
import {
  insertCompensated,
  isCompensated,
  missingCompensationTable,
} from './compensation-table.js';

/**
 * Runs a compensation once: the row that says so is the claim, and what the callback does is the
 * work. Of two calls at a time the second waits for the first, and then finds it done or does it
 * itself. A crash before COMMIT leaves nothing, and the broker calls again; after COMMIT, or when its
 * answer is lost, the next call finds the row, or finds none and runs it.
 */
export interface Compensating<Tx> {
  database: LocalDatabase<Tx>;
  request: CompensationRequest;
  compensate(tx: Tx, request: CompensationRequest): Promise<unknown>;
  /** For all of it; what is not committed then is rolled back. */
  deadline: Deadline;
  /** Aborted when the broker is told that it is not done. */
  signal: AbortSignal;
}

/**
 * @returns `'repeated'` when it was done before; `compensate` is not called then
 * @throws whatever `compensate` or the database threw, or the reason of the signal: it is not done,
 *   or nobody knows
 * @throws {EscrowError} TRANSACTION_MISUSED, OUTCOME_UNKNOWN, DATABASE_UNAVAILABLE,
 *   INVALID_CONFIGURATION
 */
export async function compensateOnce<Tx>(
  compensating: Compensating<Tx>,
): Promise<'run' | 'repeated'> {
  const { database, request, compensate, deadline, signal } = compensating;
  const { id, message, consumerGroup } = request;
  const what = `compensation of message ${message} of ${id} for ${consumerGroup}`;
  const limitMs = Math.max(1, deadline.leftMs);
  const repeated = await runClaimed<Tx, 'repeated'>({
    database,
    what,
    signal,
    limits: { connectionTimeoutMs: limitMs, commitTimeoutMs: limitMs },
    claim: (on) => claim(on, request),
    isClaimed: (on) => isCompensated(on, request),
    missingTable: missingCompensationTable,
    async work(tx) {
      await compensate(tx, request);
      // The timer behind the signal may be late, where the callback kept the event loop busy.
      if (deadline.hasPassed) throw tooLate(deadline);
    },
    ended: (outcome, cause) => endedInside(what, outcome, cause),
  });
  return repeated ?? 'run';
}

async function claim(on: ClaimOn, request: CompensationRequest): Promise<'repeated' | undefined> {
  try {
    await insertCompensated(on, request);
    return undefined;
  } catch (error) {
    if (meaningOf(error) === 'duplicate key') return 'repeated';
    throw error;
  }
}

function tooLate({ limitMs }: Deadline): EscrowError {
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `it did not end within ${limitMs} ms (answerTimeoutMs)`,
  );
}

const CONSEQUENCES: Record<ClaimOutcome, string> = {
  commit:
    'what it wrote until then is committed, its row included, and the next call will find it done: what is missing must be done by hand',
  rollback: 'its row is rolled back, and it will be called for again',
  unknown: 'whether its row is committed is not known, and the next call will tell',
};

function endedInside(what: string, outcome: ClaimOutcome, cause: unknown): EscrowError {
  const mistake =
    cause === undefined
      ? `its transaction ended inside its callback: ${ENDINGS}`
      : `it failed, and its transaction was lost or had ended by then: ${ENDINGS} may have made a part of it durable`;
  return new EscrowError('TRANSACTION_MISUSED', `${what}: ${mistake}; ${CONSEQUENCES[outcome]}`, {
    cause,
  });
}

import { EscrowError, isEscrowError, type TransactionAnswer } from '@escrowmq/protocol';
import type { Pool } from 'mysql2/promise';
import type { Lease } from './connection-lease.js';
import { Deadline, within } from './deadline.js';
import { type Outcome, settleOutcome } from './decide-outcome.js';
import {
  callbackConnection,
  commitTransaction,
  openTransaction,
  stillHoldsBarrier,
  type TransactionConnection,
  undoTransaction,
} from './local-transaction.js';
import type { Logger } from './logger.js';
import type { ProducerLimits } from './options.js';

/**
 * A local transaction and its messages, both or neither.
 *
 * Side by side: the broker stores the half messages, and the local transaction writes its barrier
 * row and runs the callback. The local COMMIT waits for the broker's prepare. Then first the
 * database commits, then the message. What a crash does at each step:
 *
 * - before the local COMMIT: the database rolls back by itself, a check inserts the barrier row as
 *   rollback, and the broker drops the messages;
 * - between the local COMMIT and the broker's: a check finds the barrier row and the broker
 *   forwards the messages.
 *
 * Two rules keep it so. Nobody sends a rollback unless the local transaction was certainly undone:
 * by a ROLLBACK of this very transaction, or by the barrier row of a check. And after an error on
 * COMMIT nothing is sent at all until a check's own procedure has decided: a client sees the same
 * lost connection whether COMMIT arrived or not (200 of 200 each way, when it was tried).
 */
export interface TransactionDeps {
  prepare(): Promise<TransactionAnswer>;
  commit(): Promise<TransactionAnswer>;
  rollback(): Promise<TransactionAnswer>;
  /** Takes over a promise that nobody waits for; `close` does. */
  runInBackground(work: Promise<void>): void;
  logger: Logger;
  limits: Pick<ProducerLimits, 'connectionTimeoutMs' | 'transactionTimeoutMs' | 'settleTimeoutMs'>;
}

export interface LocalWork<T> {
  id: string;
  pool: Pool;
  callback(tx: TransactionConnection): Promise<T>;
}

/** One call of `transaction`, as its steps see it. */
interface Run extends TransactionDeps {
  id: string;
  pool: Pool;
  /** Of the local transaction, up to its COMMIT. */
  deadline: Deadline;
  /** Date.now() at the start: the monotonic clock of the deadline stands still in a suspended machine. */
  startedAt: number;
  /** The prepare under way; resolves to its error, or to undefined once the broker holds the messages. */
  prepareFailure: Promise<Error | undefined>;
}

export async function runTransaction<T>(deps: TransactionDeps, work: LocalWork<T>): Promise<T> {
  const { id, pool } = work;
  const deadline = new Deadline(deps.limits.transactionTimeoutMs);
  const prepareFailure = deps.prepare().then(
    (answer) => rolledBackAlready(id, answer),
    (error: Error) => error,
  );
  const run: Run = { ...deps, id, pool, deadline, startedAt: Date.now(), prepareFailure };

  const lease = await open(run);
  let result: T;
  try {
    result = await callBack(run, lease, work.callback);
    const failure = await prepareFailure;
    if (failure !== undefined) throw failure;
    if (isTooOld(run)) throw tookTooLong(run);
  } catch (error) {
    throw await abandon(run, lease, error);
  }
  await verify(run, lease);
  try {
    await commitTransaction(lease, deps.limits.settleTimeoutMs);
  } catch (error) {
    await settleCommit(run, error);
  }
  await commitAtBroker(run);
  return result;
}

/** The transaction open with its barrier row; else nothing was written and the broker drops it. */
async function open(run: Run): Promise<Lease> {
  const { connectionTimeoutMs } = run.limits;
  try {
    return await openTransaction(run.pool, run.id, { connectionTimeoutMs, deadline: run.deadline });
  } catch (error) {
    await rollBackAtBroker(run);
    throw error;
  }
}

async function callBack<T>(run: Run, lease: Lease, callback: LocalWork<T>['callback']): Promise<T> {
  const { tx, refuse } = callbackConnection(lease, run.id);
  // Once the prepare has failed, every further statement would only be rolled back.
  void run.prepareFailure.then((failure) => {
    if (failure !== undefined) refuse(failure);
  });
  try {
    return await within((async () => callback(tx))(), run.deadline.leftMs, {
      error: () => tookTooLong(run),
    });
  } finally {
    refuse(
      new EscrowError(
        'TRANSACTION_MISUSED',
        `a statement was sent after the callback of transaction ${run.id} had ended; await every statement inside it`,
      ),
    );
  }
}

/** @throws the error for the caller, unless this very transaction is open and holds its barrier row */
async function verify(run: Run, lease: Lease): Promise<void> {
  let isHeld: boolean;
  try {
    isHeld = await stillHoldsBarrier(lease, run.limits.settleTimeoutMs);
  } catch (error) {
    lease.destroy();
    throw await abandon(run, lease, error);
  }
  if (isHeld) return;
  await undoTransaction(lease);
  const outcome = await decideAndTell(run);
  throw misused(run, outcome);
}

/** Undoes everything and returns the error for the caller: `error` itself, wherever it is true. */
async function abandon(run: Run, lease: Lease, error: unknown): Promise<unknown> {
  if (await undoTransaction(lease)) {
    await rollBackAtBroker(run);
    return error;
  }
  // The connection is lost, a deadlock has ended the transaction, or the callback ended it itself
  // and its barrier row may be durable: whoever says rollback now must have decided it.
  const outcome = await decideAndTell(run);
  return outcome.decision === 'commit' ? misused(run, outcome, error) : error;
}

/** COMMIT failed. Returns when it turned out to have happened. */
async function settleCommit(run: Run, error: unknown): Promise<void> {
  const { id, limits } = run;
  const outcome = await settleOutcome(run.pool, id, limits.settleTimeoutMs);
  switch (outcome.decision) {
    case 'commit':
      return;
    case 'rollback':
      await rollBackAtBroker(run);
      throw error;
    case 'unknown':
      throw new EscrowError(
        'OUTCOME_UNKNOWN',
        `COMMIT of transaction ${id} failed and ${limits.settleTimeoutMs} ms did not show its outcome (${outcome.reason}); the broker's check will decide: ask producer.query('${id}')`,
        { cause: error, details: { id } },
      );
  }
}

/** Decides like a check and tells the broker what was decided. */
async function decideAndTell(run: Run): Promise<Outcome> {
  const outcome = await settleOutcome(run.pool, run.id, run.limits.settleTimeoutMs);
  switch (outcome.decision) {
    case 'commit':
      await commitAtBroker(run);
      break;
    case 'rollback':
      await rollBackAtBroker(run);
      break;
    case 'unknown':
      run.logger.warn(
        { transactionId: run.id, reason: outcome.reason, error: outcome.cause },
        'the outcome of a failed local transaction is not known yet; a check will decide',
      );
  }
  return outcome;
}

/** The local commit is done and stands: a broker that can't be told learns it by its check. */
async function commitAtBroker(run: Run): Promise<void> {
  try {
    await run.commit();
  } catch (error) {
    const fields = { transactionId: run.id, error };
    if (isEscrowError(error) && error.retryable) {
      run.logger.warn(fields, 'committed locally, broker not told: its check will commit');
    } else {
      run.logger.error(fields, 'committed locally, but the broker refused the commit');
    }
  }
}

/** Only ever called where the local transaction was certainly undone. */
async function rollBackAtBroker(run: Run): Promise<void> {
  const failure = await run.prepareFailure;
  if (failure === undefined) return sendRollback(run);
  // It may have arrived all the same. Nobody waits for a broker that did not answer just now.
  if (isEscrowError(failure) && failure.code === 'BROKER_UNREACHABLE') {
    run.runInBackground(sendRollback(run));
  }
  // Any other failure is a refusal: the broker holds nothing of ours to roll back.
}

async function sendRollback(run: Run): Promise<void> {
  try {
    await run.rollback();
  } catch (error) {
    if (isEscrowError(error) && error.code === 'TRANSACTION_NOT_FOUND') return;
    run.logger.warn(
      { transactionId: run.id, error },
      'rolled back locally, broker not told: its check will roll back',
    );
  }
}

/** A prepare may be answered late, after a repeat: by then an operator may have decided. */
function rolledBackAlready(id: string, answer: TransactionAnswer): EscrowError | undefined {
  if (answer.decision?.decision !== 'rollback') return undefined;
  return new EscrowError(
    'ALREADY_ROLLED_BACK',
    `transaction ${id} was rolled back at the broker by ${answer.decision.by} before its local COMMIT; start a new one`,
    { details: { id, decision: answer.decision } },
  );
}

/**
 * A machine that slept for days could otherwise write its barrier row after a check's own row was
 * purged, and commit what the broker has dropped. Rows are kept for more than two days.
 */
const AGE_MS_MAX = 24 * 60 * 60 * 1000;

function isTooOld(run: Run): boolean {
  return run.deadline.hasPassed || Date.now() - run.startedAt > AGE_MS_MAX;
}

function tookTooLong(run: Run): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `the callback of transaction ${run.id} did not end within ${run.deadline.limitMs} ms (transactionTimeoutMs)`,
    { details: { id: run.id } },
  );
}

const MISTAKES =
  'a deadlock or lost lock that the callback swallowed, a DDL statement (it commits), or a COMMIT, ROLLBACK or BEGIN of its own';

const CONSEQUENCES: Record<Outcome['decision'], string> = {
  commit: 'what it wrote until then is committed, and so are its messages',
  rollback:
    'its barrier row is gone, so its messages are dropped; what it wrote after that may be durable',
  unknown: 'a check will decide whether its messages are sent',
};

function misused(run: Run, outcome: Outcome, cause?: unknown): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `local transaction ${run.id} ended inside its callback: ${MISTAKES}; ${CONSEQUENCES[outcome.decision]}`,
    { cause, details: { id: run.id, outcome: outcome.decision } },
  );
}

import type { LocalDatabase, OpenTransaction } from '@escrowmq/database';
import { callInside, Deadline, meaningOf, within } from '@escrowmq/database';
import { EscrowError } from '@escrowmq/protocol';
import { inTime } from '../client/typed-messages.js';
import type { ProducerLimits } from '../options.js';
import { endedInside } from './ended-inside.js';
import type { HeldMessages } from './held-messages.js';
import { createSuppliedData, type SuppliedData, type SupplyData } from './supplied-data.js';
import { decideAndTell, release, type Telling } from './telling.js';

/**
 * A local transaction and its messages, both or neither.
 *
 * Side by side: the messages are put where they are held, and the local transaction writes the row
 * that binds them and runs the callback. The local COMMIT waits for both. Then first the database
 * commits, then the messages go. What a crash does at each step:
 *
 * - before the local COMMIT: the database rolls back by itself, a check inserts the barrier row as
 *   rollback, and the messages are dropped;
 * - after it: a check finds the barrier row, and the messages go.
 *
 * Two rules keep it so. Nobody says rollback unless the local transaction was certainly undone: its
 * COMMIT was never sent, or a check's own procedure has decided. And after an error on COMMIT
 * nothing is said at all until that procedure has decided: a client sees the same lost connection
 * whether COMMIT arrived or not (200 of 200 each way, when it was tried).
 *
 * What is thrown means rolled back, unless it says that the callback ended the transaction itself.
 * What may have happened is a result.
 */
export interface TransactionDeps extends Telling {
  limits: Pick<
    ProducerLimits,
    'connectionTimeoutMs' | 'transactionTimeoutMs' | 'startDeadlineMs' | 'settleTimeoutMs'
  >;
}

/** What a callback is told about its transaction. */
export interface TransactionInfo {
  /** The id under which the messages are held. */
  readonly id: string;
  /** Supplies the data of a message that has `dataAtCommit: true`. */
  readonly supplyData: SupplyData;
}

export interface LocalWork<Tx, T> {
  database: LocalDatabase<Tx>;
  messages: HeldMessages;
  callback(tx: Tx, info: TransactionInfo): Promise<T>;
}

/** What became of a transaction that has committed or may have; a rollback is thrown instead. */
export type TransactionResult<T> =
  | {
      outcome: 'committed';
      /** The id under which the messages are held. */
      id: string;
      /** What the callback returned. */
      value: T;
      /**
       * Whether the broker has acknowledged the commit. If not, it will learn it by its check, and
       * the messages go then. In outbox mode it is always false: they go a moment later.
       */
      acknowledged: boolean;
    }
  | {
      /**
       * COMMIT got no answer, or the connection broke before it and a COMMIT of the callback's own
       * may have been sent; and the outcome could not be found out in `settleTimeoutMs`. The
       * broker's check will decide; `producer.query(id)` shows what. In outbox mode the messages go
       * if it has committed, and the broker knows the id from then on.
       */
      outcome: 'unknown';
      /** The id under which the messages are held. */
      id: string;
      /** Why it is not known. */
      reason: string;
      /** The error on COMMIT, or the one before it. */
      cause: unknown;
    };

/** One call of `transaction`, as its steps see it. */
interface Run<Tx, T> extends TransactionDeps, LocalWork<Tx, T> {
  id: string;
  /** Of the local transaction, up to its COMMIT. */
  deadline: Deadline;
  /** Date.now() at the start: the monotonic clock stands still in a suspended machine. */
  startedAt: number;
  /** Resolves to the error, once it is known that the messages are not held. */
  holding: Promise<Error | undefined>;
  supplied: SuppliedData;
  progress: Progress<T>;
}

/** How far the local transaction has come, for whoever must say what an error means. */
type Progress<T> =
  /** Its row is not written, or nobody knows. COMMIT was not sent. */
  | { step: 'opening' }
  /** The callback runs, and may end the transaction by mistake. */
  | { step: 'bound' }
  /** Given up, and nothing of it can become durable. */
  | { step: 'undone' }
  | { step: 'committing'; value: T };

export async function runTransaction<Tx, T>(
  deps: TransactionDeps,
  work: LocalWork<Tx, T>,
): Promise<TransactionResult<T>> {
  const { limits } = deps;
  const { messages, database } = work;
  const run: Run<Tx, T> = {
    ...deps,
    ...work,
    id: messages.id,
    deadline: new Deadline(limits.transactionTimeoutMs),
    startedAt: Date.now(),
    holding: messages.hold(),
    supplied: createSuppliedData(messages),
    progress: { step: 'opening' },
  };
  // SQLite has one writer: everybody else would wait for the broker too.
  if (database.dialect === 'sqlite') await throwFailure(run.holding);

  let value: T;
  try {
    value = await database.transaction((open) => runLocally(run, open), {
      connectionTimeoutMs: Math.min(limits.connectionTimeoutMs, run.deadline.leftMs),
      commitTimeoutMs: limits.settleTimeoutMs,
    });
  } catch (error) {
    if (run.progress.step !== 'committing') return unfinished(run, error);
    const outcome = await messages.decide(database, limits.settleTimeoutMs);
    if (outcome.decision === 'unknown') return unknown(run, outcome.reason, error);
    if (outcome.decision === 'rollback') {
      await messages.drop();
      throw error;
    }
    value = run.progress.value;
  }
  const released = await release(run, messages, run.supplied.all());
  return { outcome: 'committed', id: run.id, value, acknowledged: released === 'committed' };
}

/** From the row that binds up to COMMIT, which follows when this has resolved. */
async function runLocally<Tx, T>(run: Run<Tx, T>, open: OpenTransaction<Tx>): Promise<T> {
  await bind(run, open);
  run.progress = { step: 'bound' };
  try {
    const value = await callBack(run, open);
    await supply(run, open);
    await throwFailure(run.holding);
    if (isTooOld(run)) throw tookTooLong(run);
    const isHeld = await bounded(run, open.guard.holds(), 'whether the transaction is open');
    if (!isHeld) throw new Ended();
    run.progress = { step: 'committing', value };
    return value;
  } catch (error) {
    const isUndone = await open.guard.isUndone(run.limits.settleTimeoutMs);
    if (isUndone) run.progress = { step: 'undone' };
    throw error;
  }
}

async function bind<Tx, T>(run: Run<Tx, T>, open: OpenTransaction<Tx>): Promise<void> {
  const { executor } = open;
  const { dialect } = run.database;
  const bound = run.messages.bind({ executor, dialect }).then(() => open.guard.arm());
  try {
    await within(bound, run.deadline.leftMs, {
      error: () => unanswered('the row that binds the messages', run.deadline.limitMs),
    });
  } catch (error) {
    const meaning = meaningOf(error);
    if (meaning === 'duplicate key') throw run.messages.alreadyDecided(error);
    throw meaning === 'no such table' ? run.messages.missingTable(error) : error;
  }
  const lateMs = Date.now() - run.startedAt;
  if (lateMs <= run.limits.startDeadlineMs) return;
  throw new EscrowError(
    'TRANSACTION_MISUSED',
    `the local transaction of ${run.id} began ${lateMs} ms after its messages were prepared, more than startDeadlineMs (${run.limits.startDeadlineMs}); nothing was written, start a new one`,
    { details: { id: run.id, outcome: 'rollback' } },
  );
}

async function callBack<Tx, T>(run: Run<Tx, T>, open: OpenTransaction<Tx>): Promise<T> {
  const { id, supplied } = run;
  const { statements } = open;
  // Once it is known that nothing is held, every further statement would only be rolled back.
  void run.holding.then((failure) => {
    if (failure !== undefined) statements?.refuse(() => failure);
  });
  const info: TransactionInfo = { id, supplyData: supplied.supply };
  const value = await callInside(open, (tx) => run.callback(tx, info), {
    inside: { database: run.database as LocalDatabase<never>, what: `transaction ${id}` },
    inTime: (called) => within(called, run.deadline.leftMs, { error: () => tookTooLong(run) }),
    misused: (mistake) => misused(run, mistake),
  });
  if (statements?.sent === 0) throw misused(run, NOTHING_SENT);
  return value;
}

const NOTHING_SENT =
  'its callback sent nothing through its tx; what it did on another connection is not part of the transaction. Use tx, or producer.send for messages that hang on no local change';

/** Data that the callback supplied travel with the commit, and stay here for a check to repeat. */
async function supply<Tx, T>(run: Run<Tx, T>, open: OpenTransaction<Tx>): Promise<void> {
  const { leftMs: limitMs } = run.deadline;
  const option = 'transactionTimeoutMs';
  const messageData = await inTime(run.supplied.complete(), { limitMs, option });
  if (messageData === undefined) return;
  const { executor } = open;
  const { dialect } = run.database;
  await bounded(run, run.messages.supply({ executor, dialect }, messageData), 'the supplied data');
}

/** The transaction is not the one that wrote the barrier row any more. */
class Ended extends Error {}

/**
 * Tells everybody what became of a transaction whose COMMIT was not sent.
 *
 * @throws the error, when it was rolled back, or one that says that the callback ended it
 */
async function unfinished<Tx, T>(run: Run<Tx, T>, error: unknown): Promise<TransactionResult<T>> {
  const cause = error instanceof Ended ? undefined : error;
  if (run.progress.step !== 'bound') {
    await run.messages.drop();
    throw cause ?? endedInside(run.messages, { decision: 'rollback' });
  }
  // The connection is lost, or the callback ended the transaction itself and its barrier row may be
  // durable: whoever says rollback now must have decided it.
  const told = await decideAndTell(run, run.messages, {
    database: run.database,
    limitMs: run.limits.settleTimeoutMs,
  });
  if (cause === undefined || told.decision === 'commit')
    throw endedInside(run.messages, told, cause);
  if (told.decision === 'rollback') throw cause;
  return { outcome: 'unknown', id: run.id, reason: `${told.reason}; ${told.next}`, cause };
}

function unknown<Tx, T>(run: Run<Tx, T>, reason: string, cause: unknown): TransactionResult<T> {
  const { id } = run;
  run.logger.warn(
    { transactionId: id, reason, error: cause },
    `COMMIT got no answer and its outcome is not known yet; ${run.messages.whileUnknown}`,
  );
  return { outcome: 'unknown', id, reason, cause };
}

async function throwFailure(holding: Promise<Error | undefined>): Promise<void> {
  const failure = await holding;
  if (failure !== undefined) throw failure;
}

/**
 * A machine that slept for days could otherwise write its barrier row after a check's own row was
 * purged, and commit what the broker has dropped. Rows are kept for more than two days.
 */
const AGE_MS_MAX = 24 * 60 * 60 * 1000;

function isTooOld<Tx, T>(run: Run<Tx, T>): boolean {
  return run.deadline.hasPassed || Date.now() - run.startedAt > AGE_MS_MAX;
}

function tookTooLong<Tx, T>(run: Run<Tx, T>): EscrowError {
  return misused(
    run,
    `its callback did not end within ${run.deadline.limitMs} ms (transactionTimeoutMs)`,
  );
}

function bounded<Tx, T, R>(run: Run<Tx, T>, work: Promise<R>, what: string): Promise<R> {
  const limitMs = run.limits.settleTimeoutMs;
  return within(work, limitMs, { error: () => unanswered(what, limitMs) });
}

function unanswered(what: string, limitMs: number): EscrowError {
  return new EscrowError(
    'DATABASE_UNAVAILABLE',
    `the local database did not answer ${what} within ${Math.round(limitMs)} ms`,
  );
}

/** A mistake that was seen while everything could still be rolled back. */
function misused<Tx, T>({ id }: Run<Tx, T>, mistake: string): EscrowError {
  return new EscrowError('TRANSACTION_MISUSED', `transaction ${id}: ${mistake}`, {
    details: { id, outcome: 'rollback' },
  });
}

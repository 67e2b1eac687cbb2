import { EscrowError, isEscrowError } from '@escrowmq/protocol';
import { callInside } from './call-inside.js';
import { isConflict } from './conflicts.js';
import type {
  Dialect,
  Executor,
  LocalDatabase,
  OpenTransaction,
  TransactionLimits,
} from './database.js';
import { Deadline, within } from './deadline.js';
import { meaningOf, provesRollback } from './server-errors.js';

/**
 * Work that is done once: a claim, which is a row that admits one, and the work, in one local
 * transaction. What the row is, and what it refuses, is the caller's.
 *
 * The claim is written first, so that a second caller with the same claim waits there and not in the
 * work; what it finds when the first one has ended is durable. What a crash does:
 *
 * - before COMMIT: the database rolls back claim and work, and whoever wants the work asks again;
 * - after it, before anybody was told: it is asked for again, and the claim is there.
 *
 * So whoever wants the work is told outside of all this, and nothing here needs to know how that ends.
 * An error on COMMIT is not looked into either: the work is asked for again, and then the claim tells.
 */
export interface ClaimedWork<Tx, S> {
  /** Where claim and work are written. */
  database: LocalDatabase<Tx>;
  /** As errors call it: `message 0198f3c2-…-0`. */
  what: string;
  /** Ends the wait for whatever is under way; what was not committed by then is rolled back. */
  signal: AbortSignal | undefined;
  /** For the answer to COMMIT, and for finding out what became of a transaction that broke. */
  limits: TransactionLimits;
  /**
   * Writes the row, or says why there is nothing to do.
   *
   * @throws {LostRace} to be called again in a new transaction, or the layer's error
   */
  claim(on: ClaimOn): Promise<S | undefined>;
  /** On a connection of its own, by a locking read: whether this claim has become durable. */
  isClaimed(on: ClaimOn): Promise<boolean>;
  /** The error for a database that lacks the table of claims. */
  missingTable(cause: unknown): EscrowError;
  /** What is done once, through `tx`. */
  work(tx: Tx): Promise<unknown>;
  /**
   * Told when the work has ended and sent nothing through its `tx`, where the adapter can see that. No
   * error: work may find that there is nothing to do. But work on another connection looks the same, and
   * that is not in the transaction.
   * @default nobody is told
   */
  unused?(): void;
  /**
   * The error to throw when the transaction did not outlive its work.
   *
   * @param claim what became of the claim, and so of what the work wrote until the transaction ended
   * @param cause what the work threw, or why the connection was lost; none when the work resolved
   */
  ended(claim: ClaimOutcome, cause?: unknown): unknown;
}

/** Where a claim is written and looked for. */
export interface ClaimOn {
  /** Statements on that connection. */
  executor: Executor;
  /** Which SQL it takes. */
  dialect: Dialect;
}

/** What became of a claim: durable, undone, or not known. */
export type ClaimOutcome = 'commit' | 'rollback' | 'unknown';

/** Somebody else was faster; a new transaction will see what he did. */
export class LostRace extends Error {}

/** For callers that bring no signal: the longest that a subscription lets a handler run. */
const WORK_MS_MAX = 25 * 60 * 1000;

/**
 * Each new attempt begins when another transaction has come further, so even two are seldom needed.
 * After the last the error is thrown, and the work is asked for again after a pause. Under
 * SERIALIZABLE every read locks: ten that claim the same lost five times in a row, one time in four.
 */
const CLAIMS_MAX = 8;
/** Grows with the attempts, and is drawn, so that those who met do not meet again. */
const PAUSE_MS = 10;

/** How far the transaction has come, for whoever must say what an error means. */
type Step =
  /** The claim is not written; nothing of the caller's was called. */
  | 'claiming'
  /** The work runs, and may end the transaction by mistake. */
  | 'claimed'
  /** Given up, and nothing of it can become durable. */
  | 'undone'
  | 'committing';

interface Run<Tx, S> extends ClaimedWork<Tx, S> {
  deadline: Deadline;
  step: Step;
  /** Its time is over or its signal aborted: nothing more is sent. */
  isGivenUp: boolean;
}

/**
 * Writes the claim and does the work, in one transaction of the database.
 *
 * @returns why there was nothing to do, or undefined when the work is durable
 * @throws whatever the work, the claim or the database threw, what `ended` says, or the reason of the
 *   signal when it was aborted before COMMIT: nothing is done then
 * @throws {EscrowError} OUTCOME_UNKNOWN when COMMIT got no answer; TRANSACTION_MISUSED;
 *   DATABASE_UNAVAILABLE without a connection; what `missingTable` makes
 */
export async function runClaimed<Tx, S>(claimed: ClaimedWork<Tx, S>): Promise<S | undefined> {
  const deadline = new Deadline(WORK_MS_MAX);
  for (let claims = 1; ; claims += 1) {
    const run: Run<Tx, S> = { ...claimed, deadline, step: 'claiming', isGivenUp: false };
    try {
      await run.database.transaction((open) => runInside(run, open), run.limits);
      return undefined;
    } catch (error) {
      if (error instanceof NothingToDo) return error.why as S;
      const again = run.step === 'claiming' && hasLostRace(error) && claims < CLAIMS_MAX;
      if (!again) throw await explained(run, error);
      await deadline.pause(Math.random() * PAUSE_MS * claims);
    }
  }
}

/** From the claim up to COMMIT, which follows when this has resolved. */
async function runInside<Tx, S>(run: Run<Tx, S>, open: OpenTransaction<Tx>): Promise<void> {
  const { signal, deadline } = run;
  // The wait for a connection may have taken longer than there was time.
  signal?.throwIfAborted();
  try {
    // Work out of time counts as failed, so what it did must not stand. Between this and the answer
    // to COMMIT both can be true; then it is asked for again, and the claim is there.
    await within(claimAndWork(run, open), deadline.leftMs, {
      error: () => misused(run, `its work did not end within ${WORK_MS_MAX} ms`),
      signal,
    });
  } catch (error) {
    run.isGivenUp = true;
    open.statements?.refuse(() => misused(run, 'a statement was sent after it was given up'));
    const limitMs = run.limits.commitTimeoutMs;
    if (run.step === 'claimed' && (await open.guard.isUndone(limitMs))) run.step = 'undone';
    throw error;
  }
  run.step = 'committing';
}

async function claimAndWork<Tx, S>(run: Run<Tx, S>, open: OpenTransaction<Tx>): Promise<void> {
  const { executor } = open;
  const why = await run.claim({ executor, dialect: run.database.dialect });
  // Thrown, because there is nothing to commit: on PostgreSQL a refused insert has spoilt it anyway.
  if (why !== undefined) throw new NothingToDo(why);
  await open.guard.arm();
  // Nobody waits any more, and the connection is being rolled back.
  if (run.isGivenUp) return;
  run.step = 'claimed';
  await callInside(open, run.work, {
    inside: { database: run.database as LocalDatabase<never>, what: run.what },
    misused: (mistake) => misused(run, mistake),
  });
  if (open.statements?.sent === 0) run.unused?.();
  if (run.isGivenUp) return;
  if (!(await open.guard.holds())) throw new Ended();
}

class NothingToDo extends Error {
  readonly why: unknown;
  constructor(why: unknown) {
    super('there is nothing to do');
    this.why = why;
  }
}

/** The transaction is not the one that wrote the claim any more. */
class Ended extends Error {}

/** Nothing but the claim was written, so the whole may be done again. */
const hasLostRace = (error: unknown) => error instanceof LostRace || isConflict(error);

/** What to throw for a transaction that did not come to its end. */
async function explained<Tx, S>(run: Run<Tx, S>, error: unknown): Promise<unknown> {
  switch (run.step) {
    case 'claiming':
      return meaningOf(error) === 'no such table' ? run.missingTable(error) : error;
    case 'undone':
      return error instanceof Ended ? run.ended('rollback') : error;
    case 'committing':
      // What the server said about COMMIT may prove that it is undone, and so does what an adapter
      // made of it.
      if (provesRollback(error) || isMisuse(error)) return error;
      return new EscrowError(
        'OUTCOME_UNKNOWN',
        `whether the claim of ${run.what} is durable is not known: COMMIT got no answer. It comes again, and then the table tells`,
        { cause: error },
      );
    case 'claimed':
      // The connection is lost, or the work ended the transaction and the claim may be durable.
      return run.ended(await outcomeOf(run), error instanceof Ended ? undefined : error);
  }
}

const isMisuse = (error: unknown) => isEscrowError(error) && error.code === 'TRANSACTION_MISUSED';

async function outcomeOf<Tx, S>(run: Run<Tx, S>): Promise<ClaimOutcome> {
  const { dialect } = run.database;
  const look = run.database.session((executor) => run.isClaimed({ executor, dialect }), run.limits);
  try {
    return (await look) ? 'commit' : 'rollback';
  } catch {
    // The error that led here says more, and the work is asked for again in any case.
    return 'unknown';
  }
}

/** A mistake that was seen while everything could still be rolled back. */
function misused<Tx, S>({ what }: Run<Tx, S>, mistake: string): EscrowError {
  return new EscrowError('TRANSACTION_MISUSED', `${what}: ${mistake}`, {
    details: { outcome: 'rollback' },
  });
}

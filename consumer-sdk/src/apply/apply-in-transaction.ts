import type { Executor, LocalDatabase, OpenTransaction } from '@escrowmq/database';
import {
  callInside,
  Deadline,
  type Dialect,
  ENDINGS,
  isAnswered,
  meaningOf,
  within,
} from '@escrowmq/database';
import { EscrowError, isEscrowError } from '@escrowmq/protocol';

/**
 * One application of something in the consumer's database: a claim, which is a row that admits one,
 * and the work, in one local transaction. `once` and `latest` differ in their claims.
 *
 * The claim is written first, so that a second instance with the same message waits there and not
 * in the work; what it finds when the first one has ended is durable. What a crash does:
 *
 * - before COMMIT: the database rolls back claim and work, and the message comes again;
 * - after it, before the message is acknowledged: the message comes again, and the claim is there.
 *
 * So the message is acknowledged outside of all this, and nothing here needs to know how it ends.
 * An error on COMMIT is not looked into either: the message comes again, and then the claim tells.
 */
export interface Application<Tx, S> {
  database: LocalDatabase<Tx>;
  /** As errors call it: `message 0198f3c2-…-0`. */
  what: string;
  /** Ends the wait for whatever is under way; what was not committed by then is rolled back. */
  signal: AbortSignal | undefined;
  limits: ApplyLimits;
  /**
   * Writes the row, or says why there is nothing to apply.
   *
   * @throws {LostRace} to be called again in a new transaction, or the layer's error
   */
  claim(on: ClaimOn): Promise<S | undefined>;
  /** On a connection of its own, by a locking read: whether this claim has become durable. */
  isClaimed(on: ClaimOn): Promise<boolean>;
  missingTable(cause: unknown): EscrowError;
  work(tx: Tx): Promise<unknown>;
}

export interface ClaimOn {
  executor: Executor;
  dialect: Dialect;
}

/** All in milliseconds. */
export interface ApplyLimits {
  /** For getting a connection. */
  connectionTimeoutMs: number;
  /** For the answer to COMMIT, and for finding out what became of a transaction that broke. */
  commitTimeoutMs: number;
}

/** Another instance was faster; a new transaction will see what it did. */
export class LostRace extends Error {}

/** The longest that a subscription lets a handler run; for callers that bring no signal. */
const WORK_MS_MAX = 25 * 60 * 1000;

/**
 * Each new attempt begins when another transaction has come further, so even two are seldom needed.
 * After the last the error is thrown, and the message is tried again after a pause.
 */
const CLAIMS_MAX = 5;

/** How far the transaction has come, for whoever must say what an error means. */
type Step =
  /** The claim is not written; nothing of the caller's was called. */
  | 'claiming'
  /** The work runs, and may end the transaction by mistake. */
  | 'claimed'
  /** Given up, and nothing of it can become durable. */
  | 'undone'
  | 'committing';

interface Run<Tx, S> extends Application<Tx, S> {
  deadline: Deadline;
  step: Step;
  /** Its time is over or its signal aborted: nothing more is sent. */
  isGivenUp: boolean;
}

/** @returns why there was nothing to apply, or undefined when the work is durable */
export async function applyInTransaction<Tx, S>(
  application: Application<Tx, S>,
): Promise<S | undefined> {
  const deadline = new Deadline(WORK_MS_MAX);
  for (let claims = 1; ; claims += 1) {
    const run: Run<Tx, S> = { ...application, deadline, step: 'claiming', isGivenUp: false };
    try {
      await run.database.transaction((open) => applyIn(run, open), run.limits);
      return undefined;
    } catch (error) {
      if (error instanceof NothingToApply) return error.why as S;
      const again = run.step === 'claiming' && hasLostRace(error) && claims < CLAIMS_MAX;
      if (!again) throw await explained(run, error);
    }
  }
}

/** From the claim up to COMMIT, which follows when this has resolved. */
async function applyIn<Tx, S>(run: Run<Tx, S>, open: OpenTransaction<Tx>): Promise<void> {
  const { signal, deadline } = run;
  // The wait for a connection may have taken longer than the handler had.
  signal?.throwIfAborted();
  try {
    // A handler out of time counts as failed, so what it did must not stand. Between this and the
    // answer to COMMIT both can be true; then the message comes again and is a duplicate.
    await within(claimAndWork(run, open), deadline.leftMs, {
      error: () => misused(run, `its work did not end within ${WORK_MS_MAX} ms`),
      signal,
    });
  } catch (error) {
    run.isGivenUp = true;
    open.statements?.refuse(() => misused(run, 'a statement was sent after it was given up'));
    if (run.step === 'claimed' && (await open.guard.isUndone())) run.step = 'undone';
    throw error;
  }
  run.step = 'committing';
}

async function claimAndWork<Tx, S>(run: Run<Tx, S>, open: OpenTransaction<Tx>): Promise<void> {
  const { executor } = open;
  const why = await run.claim({ executor, dialect: run.database.dialect });
  // Thrown, because there is nothing to commit: on PostgreSQL a refused insert has spoilt it anyway.
  if (why !== undefined) throw new NothingToApply(why);
  await open.guard.arm();
  // Nobody waits any more, and the connection is being rolled back.
  if (run.isGivenUp) return;
  run.step = 'claimed';
  await callInside(open, run.work, { misused: (mistake) => misused(run, mistake) });
  if (run.isGivenUp) return;
  if (!(await open.guard.holds())) throw new Ended();
}

class NothingToApply extends Error {
  readonly why: unknown;
  constructor(why: unknown) {
    super('there is nothing to apply');
    this.why = why;
  }
}

/** The transaction is not the one that wrote the claim any more. */
class Ended extends Error {}

/** Nothing but the claim was written, so the whole may be done again. */
function hasLostRace(error: unknown): boolean {
  if (error instanceof LostRace) return true;
  const meaning = meaningOf(error);
  return meaning === 'deadlock' || meaning === 'not serializable';
}

/** What to throw for a transaction that did not come to its end. */
async function explained<Tx, S>(run: Run<Tx, S>, error: unknown): Promise<unknown> {
  switch (run.step) {
    case 'claiming':
      return meaningOf(error) === 'no such table' ? run.missingTable(error) : error;
    case 'undone':
      return error instanceof Ended ? endedInside(run, 'rollback') : error;
    case 'committing':
      // What the server said about COMMIT is an answer, and so is what an adapter made of it.
      if (isAnswered(error) || isMisuse(error)) return error;
      return new EscrowError(
        'OUTCOME_UNKNOWN',
        `whether ${run.what} was applied is not known: COMMIT got no answer. It comes again, and then the table tells`,
        { cause: error },
      );
    case 'claimed': {
      // The connection is lost, or the work ended the transaction and the claim may be durable.
      const cause = error instanceof Ended ? undefined : error;
      const outcome = await outcomeOf(run);
      return cause === undefined || outcome === 'commit' ? endedInside(run, outcome, cause) : cause;
    }
  }
}

const isMisuse = (error: unknown) => isEscrowError(error) && error.code === 'TRANSACTION_MISUSED';

type Outcome = 'commit' | 'rollback' | 'unknown';

async function outcomeOf<Tx, S>(run: Run<Tx, S>): Promise<Outcome> {
  const { dialect } = run.database;
  const look = run.database.session((executor) => run.isClaimed({ executor, dialect }), run.limits);
  try {
    return (await look) ? 'commit' : 'rollback';
  } catch {
    // The error that led here says more, and the message comes again in any case.
    return 'unknown';
  }
}

const CONSEQUENCES: Record<Outcome, string> = {
  commit:
    'what it wrote until then is committed, what it wrote after that may be, and the message counts as applied: what is missing must be done by hand',
  rollback: 'what it wrote until then is rolled back; what it wrote after that may be durable',
  unknown: 'whether what it wrote until then is committed is not known',
};

function endedInside<Tx, S>(run: Run<Tx, S>, outcome: Outcome, cause?: unknown): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    `the transaction of ${run.what} ended inside its work: ${ENDINGS}; ${CONSEQUENCES[outcome]}`,
    // The message must not come again: it would be a duplicate, and nobody would miss the rest.
    { cause, details: outcome === 'commit' ? { outcome, appliedInPart: true } : { outcome } },
  );
}

/** A mistake that was seen while everything could still be rolled back. */
function misused<Tx, S>({ what }: Run<Tx, S>, mistake: string): EscrowError {
  return new EscrowError('TRANSACTION_MISUSED', `${what}: ${mistake}`, {
    details: { outcome: 'rollback' },
  });
}

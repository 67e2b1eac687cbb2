import type { LocalDatabase, OpenTransaction } from './database.js';
import { runInside } from './nested.js';

/** What a callback is held to while it runs in an open transaction. */
export interface CallbackRules {
  /** Where and in what it runs, for whatever it begins inside: see nested.ts. */
  inside: {
    /** The database whose transaction is open. */
    database: LocalDatabase<never>;
    /** The call that opened it: `transaction`, `once`. */
    what: string;
  };
  /** Waits for the callback as long as it may take. @default waits as long as it takes */
  inTime?<T>(called: Promise<T>): Promise<T>;
  /** The error for a mistake of the callback, which is described in half a sentence. */
  misused(mistake: string): Error;
}

/**
 * Runs a callback in a transaction that is open and armed. What it sends after its end is refused,
 * and so is the whole transaction when a statement of it is still under way then: that one would
 * run beside COMMIT, in the transaction or behind it, and nobody would hear of its failure.
 *
 * Whether the transaction outlived the callback is the guard's to say.
 *
 * @throws what the callback or `inTime` threw, or an error of `misused`
 */
export async function callInside<Tx, T>(
  open: OpenTransaction<Tx>,
  callback: (tx: Tx) => Promise<T>,
  { inside, inTime, misused }: CallbackRules,
): Promise<T> {
  const { statements } = open;
  try {
    // One that throws at once must look like one that rejects.
    const called = runInside(inside.database, inside.what, async () => callback(open.tx));
    const value = await (inTime === undefined ? called : inTime(called));
    if (statements !== undefined && statements.unanswered > 0) throw misused(NOT_AWAITED);
    return value;
  } finally {
    statements?.refuse(() => misused(AFTER_ITS_END));
  }
}

const NOT_AWAITED =
  'its callback ended while a statement was still under way; await every statement inside it';
const AFTER_ITS_END = 'a statement was sent after the callback had ended';

/** What ends a transaction under its callback's hands, for the error that says so. */
export const ENDINGS =
  'a deadlock or another error that ended it and that the callback swallowed, a DDL statement (it commits on MySQL), or a COMMIT, ROLLBACK or BEGIN of its own';

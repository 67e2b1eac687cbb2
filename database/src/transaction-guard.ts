import type { Executor, TransactionGuard } from './database.js';
import { within } from './deadline.js';
import { isAnswered, meaningOf } from './server-errors.js';

/**
 * A savepoint right behind the barrier row. Whatever ends the transaction takes it away: a deadlock
 * that the callback swallowed, the implicit commit of a DDL statement, a stray COMMIT or ROLLBACK, a
 * second BEGIN. So the savepoint proves that this very transaction is open and holds its row. On
 * PostgreSQL it can't be released either when the callback swallowed an error, after which a COMMIT
 * would roll back without saying so.
 *
 * Savepoints that an ORM makes for nested transactions come after it and do not touch it.
 */
const SAVEPOINT = 'escrow_barrier';

/** A guard by a savepoint, which is gone when its transaction has ended. */
export function savepointGuard(executor: Executor, name = SAVEPOINT): TransactionGuard {
  return {
    async arm() {
      await executor.execute(`savepoint ${name}`);
    },
    holds: () => isThere(executor.execute(`release savepoint ${name}`)),
    async isUndone(limitMs) {
      const rolledBack = isThere(executor.execute(`rollback to savepoint ${name}`));
      try {
        // A connection behind which the network is gone never answers, and its client never knows.
        return await within(rolledBack, limitMs, {
          error: () => new Error(`no answer to ROLLBACK TO SAVEPOINT within ${limitMs} ms`),
        });
      } catch {
        // The connection is lost. The caller's own error is the one to tell.
        return false;
      }
    },
  };
}

/**
 * What the answer to a statement on a savepoint says: that it is there, or that it is not, and so the
 * transaction has ended. Every other answer says nothing about that, and is thrown.
 */
export async function isThere(answer: Promise<unknown>): Promise<boolean> {
  try {
    await answer;
    return true;
  } catch (error) {
    const meaning = meaningOf(error);
    if (meaning === 'no open transaction' || meaning === 'deadlock') return false;
    throw error;
  }
}

/**
 * SQLite begins a transaction with a savepoint where none is open, so there the savepoint proves
 * nothing. It refuses a second BEGIN.
 */
export async function isSqliteInTransaction(executor: Executor): Promise<boolean> {
  try {
    await executor.execute('begin');
  } catch (error) {
    if (isAnswered(error)) return true;
    throw error;
  }
  await executor.execute('rollback');
  return false;
}

import type { Executor, TransactionGuard } from './database.js';
import { within } from './deadline.js';
import { isAnswered } from './server-errors.js';

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

export function savepointGuard(executor: Executor, name = SAVEPOINT): TransactionGuard {
  return {
    async arm() {
      await executor.execute(`savepoint ${name}`);
    },
    holds: () => succeeds(executor, `release savepoint ${name}`),
    async isUndone(limitMs) {
      const rolledBack = succeeds(executor, `rollback to savepoint ${name}`);
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

/** False when the server refused; what is no answer of the server is thrown. */
async function succeeds(executor: Executor, sql: string): Promise<boolean> {
  try {
    await executor.execute(sql);
    return true;
  } catch (error) {
    if (isAnswered(error)) return false;
    throw error;
  }
}

/**
 * SQLite begins a transaction with a savepoint where none is open, so there the savepoint proves
 * nothing. It refuses a second BEGIN.
 */
export async function isSqliteInTransaction(executor: Executor): Promise<boolean> {
  if (!(await succeeds(executor, 'begin'))) return true;
  await executor.execute('rollback');
  return false;
}

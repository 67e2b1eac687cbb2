import { EscrowError } from '@escrowmq/protocol';
import type { Dialect, Executor, TransactionGuard } from '../database.js';
import { meaningOf } from '../server-errors.js';
import { isThere, savepointGuard } from '../transaction-guard.js';

/**
 * COMMIT for layers that do not show how the server answered theirs.
 *
 * A statement that a callback did not await may reach the server after the guard was asked and
 * before COMMIT; an ORM thinks longer about an insert than about a savepoint. If it fails on
 * PostgreSQL, or meets a deadlock on MySQL, the transaction is rolled back and the COMMIT that
 * follows succeeds all the same: the rows are gone, and the messages would go. With Sequelize and
 * with Prisma an insert of a duplicate key that was not awaited did just that.
 *
 * So nothing may come between the proof and COMMIT. PostgreSQL gets both in one text, which ends at
 * the first statement that fails. MySQL takes one statement at a time; there both are sent in the
 * same turn, and the proof's answer counts. A new transaction is chained on, so that the layer finds
 * one open when it commits by itself.
 *
 * SQLite refuses a COMMIT when the transaction was rolled back, so there the layer's own will do.
 */
export interface ProvenCommit {
  guard: TransactionGuard;
  /**
   * To be called when `guard.holds()` has said yes, right before the layer commits.
   *
   * @throws the server's error on COMMIT
   * @throws {EscrowError} TRANSACTION_MISUSED when the transaction had ended: nothing of it is
   *   durable, unless what ended it has committed it
   */
  commit(): Promise<void>;
}

const BARRIER = 'escrow_barrier';
/** Set by `holds`, under a name of its own: giving up must not roll back to it. */
const BEFORE_COMMIT = 'escrow_commit';
const SET = `savepoint ${BEFORE_COMMIT}`;
const PROVE = `release savepoint ${BEFORE_COMMIT}`;
const COMMIT = 'commit and chain';

export function provenCommit(executor: Executor, dialect: Dialect): ProvenCommit | undefined {
  const base = savepointGuard(executor, BARRIER);
  switch (dialect) {
    case 'postgres':
      return {
        guard: {
          ...base,
          holds: () => isThere(executor.execute(`release savepoint ${BARRIER}; ${SET}`)),
        },
        commit: () => executor.execute(`${PROVE}; ${COMMIT}`).then(() => undefined, explain),
      };
    case 'mysql':
      return {
        guard: {
          ...base,
          async holds() {
            const [held] = await Promise.allSettled([base.holds(), executor.execute(SET)]);
            if (held.status === 'rejected') throw held.reason;
            return held.value;
          },
        },
        async commit() {
          const [proof, committed] = await Promise.allSettled([
            executor.execute(PROVE),
            executor.execute(COMMIT),
          ]);
          if (proof.status === 'rejected') explain(proof.reason);
          if (committed.status === 'rejected') throw committed.reason;
        },
      };
    case 'sqlite':
      return undefined;
  }
}

/** The error of the savepoint means that the transaction is gone; any other is that of COMMIT. */
function explain(error: unknown): never {
  if (meaningOf(error) !== 'no open transaction') throw error;
  throw new EscrowError(
    'TRANSACTION_MISUSED',
    'a statement that the callback did not await has ended the transaction right before its COMMIT; await every statement inside the callback',
    { cause: error },
  );
}

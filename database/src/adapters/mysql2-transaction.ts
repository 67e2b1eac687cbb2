import { EscrowError } from '@escrowmq/protocol';
import type { OpenTransaction, TransactionGuard } from '../database.js';
import { meaningOf } from '../server-errors.js';
import { savepointGuard } from '../transaction-guard.js';
import { callbackStatements } from './callback-statements.js';
import { mysql2Executor, run, statusOf } from './mysql2-executor.js';
import type { Mysql2Connection, Mysql2Transaction } from './mysql2-shape.js';

/**
 * A local transaction on a connection of mysql2, watched as it goes. MySQL says with every answer
 * without rows whether a transaction is open, and only a few kinds of statements can end or begin
 * one. So as long as a callback sends nothing but reads and writes of rows, two things are known for
 * nothing: that the transaction is the one that wrote the barrier row, unless an answer said that
 * none is open; and that nothing of it is durable before COMMIT, whatever becomes of the connection.
 *
 * Right before the first statement of any other kind (DDL, CALL, COMMIT, SET, several in one text) a
 * savepoint is set, and from then on it proves the same. Setting one always would cost two round
 * trips of six per transaction.
 */
export interface Mysql2OpenTransaction<C extends Mysql2Connection>
  extends OpenTransaction<Mysql2Transaction<C>> {
  /** Sends `start transaction`. */
  begin(): Promise<void>;
}

/** They neither end a transaction nor begin one, and nor can what they call: triggers, functions. */
const ROW_STATEMENT = /^\s*(select|insert|update|delete|replace|with|values|table|do)\b/i;
/** A second statement in the same text may be of any kind. One in a literal only costs a savepoint. */
const SEVERAL = /;\s*\S/;

export function touchesRowsOnly(statement: unknown): boolean {
  const sql =
    typeof statement === 'object' && statement !== null && 'sql' in statement
      ? statement.sql
      : statement;
  return typeof sql === 'string' && ROW_STATEMENT.test(sql) && !SEVERAL.test(sql);
}

export function openMysql2Transaction<C extends Mysql2Connection>(
  connection: C,
): Mysql2OpenTransaction<C> {
  const executor = mysql2Executor(connection);
  const savepoint = savepointGuard(executor);
  /** The savepoint under way or set; absent while nothing needed it. */
  let armed: Promise<void> | undefined;
  /** An answer said that no transaction is open. */
  let hasEnded = false;
  /** After an error the server does not say whether the transaction outlived it. */
  let isInDoubt = false;
  /** What a callback that swallowed a deadlock sent next would stand alone, in autocommit. */
  let isDeadlocked = false;
  const statements = callbackStatements();

  function arm(): void {
    if (armed !== undefined) return;
    armed = savepoint.arm();
    // Its failure shows when it is awaited; nobody may ever.
    armed.catch(() => undefined);
  }

  function note(result: unknown): void {
    if (statusOf(result)?.isInTransaction === false) hasEnded = true;
  }

  const guard: TransactionGuard = {
    async arm() {
      // Nothing to do: the savepoint is set when a statement needs it.
    },
    async holds() {
      if (armed !== undefined) {
        await armed;
        return savepoint.holds();
      }
      if (isInDoubt) note(await run(connection, 'do 0'));
      return !hasEnded;
    },
    // Nothing that could commit was sent, so what is not committed goes with the transaction.
    isUndone: async (limitMs) => (armed === undefined ? true : savepoint.isUndone(limitMs)),
  };

  const watched =
    (call: 'execute' | 'query') =>
    async (...args: unknown[]) => {
      if (statements.refusal !== undefined) throw statements.refusal();
      if (isDeadlocked) throw deadlocked();
      statements.sent += 1;
      statements.unanswered += 1;
      // The connection sends one statement after the other: the savepoint goes first.
      if (!touchesRowsOnly(args[0])) arm();
      try {
        const answer: [unknown, unknown] = await Reflect.apply(connection[call], connection, args);
        note(answer[0]);
        return answer;
      } catch (error) {
        isInDoubt = true;
        if (meaningOf(error) === 'deadlock') {
          isDeadlocked = true;
          hasEnded = true;
        }
        throw error;
      } finally {
        statements.unanswered -= 1;
      }
    };

  return {
    // The overloads of mysql2 are kept: every argument is passed on as it came.
    tx: Object.freeze({ execute: watched('execute'), query: watched('query') }) as Readonly<
      Pick<C, 'execute' | 'query'>
    >,
    executor,
    guard,
    statements,
    async begin() {
      const status = statusOf(await run(connection, 'start transaction'));
      // Without autocommit a new transaction would follow the one that ended, unseen.
      if (status?.isAutocommit !== true) arm();
      await armed;
    },
  };
}

function deadlocked(): EscrowError {
  return new EscrowError(
    'TRANSACTION_MISUSED',
    'a deadlock has rolled the transaction back, and its error was swallowed; let it pass, so that the whole is done again',
    { details: { outcome: 'rollback' } },
  );
}

import type { ClientBase } from 'pg';
import type { Executor, OpenTransaction, TransactionGuard } from '../database.js';
import { executorOn } from '../executor.js';
import { meaningOf } from '../server-errors.js';
import { savepointGuard } from '../transaction-guard.js';
import { callbackStatements } from './callback-statements.js';
import { AS_SENT } from './pg-rows.js';
import { numbered } from './placeholders.js';

/**
 * What a callback gets: `query` with every overload that pg has, and nothing that could end the
 * transaction.
 */
export type PgTransaction = Readonly<Pick<ClientBase, 'query'>>;

export function pgExecutor(client: ClientBase): Executor {
  // pg wants one statement at a time, and from version 9 on takes no others.
  let last: Promise<unknown> = Promise.resolve();
  return executorOn({
    layer: 'pg',
    hooks: 'what wraps the pool, or a query method of its own',
    send(sql, values) {
      const send = async () => {
        const query = { text: numbered(sql), values: [...values], ...AS_SENT };
        return (await client.query(query)).rows;
      };
      const answer = last.then(send, send);
      last = answer;
      return answer;
    },
  });
}

/** They can't end a transaction, nor can what they call: a function may not, and CALL is no part of them. */
const ROW_STATEMENT = /^\s*(select|insert|update|delete|merge|with|values|table)\b/i;
/** A second statement in the same text may be of any kind. One in a literal only costs a savepoint. */
const SEVERAL = /;\s*\S/;

export function touchesRowsOnly(statement: unknown): boolean {
  const sql =
    typeof statement === 'object' && statement !== null && 'text' in statement
      ? statement.text
      : statement;
  return typeof sql === 'string' && ROW_STATEMENT.test(sql) && !SEVERAL.test(sql);
}

/** A cursor, a stream or a `Query` of pg: it goes its own way, and its answer is not seen here. */
function isSubmittable(statement: unknown): boolean {
  return typeof statement === 'object' && statement !== null && 'submit' in statement;
}

/**
 * A local transaction on a client of pg, watched as it goes. PostgreSQL ends one only by a statement
 * that says so. While a callback sends nothing but reads and writes of rows, the transaction is the
 * one that wrote the barrier row, and nothing of it is durable before COMMIT, whatever becomes of the
 * connection; and what an error does to it shows in the answer to the next statement.
 *
 * Right before the first statement of any other kind (DDL, COMMIT, SET, several in one text) a
 * savepoint is set, and from then on it proves the same. Setting one always would cost two round
 * trips of six per transaction.
 */
export function openPgTransaction(client: ClientBase): OpenTransaction<PgTransaction> {
  const executor = pgExecutor(client);
  const savepoint = savepointGuard(executor);
  /** The savepoint under way or set; absent while nothing needed it. */
  let armed: Promise<void> | undefined;
  /** Its answer is not there yet. What comes after it waits, as pg wants one statement at a time. */
  let arming: Promise<void> | undefined;
  /** A statement failed, or its answer can't be seen here: the transaction may be spoilt. */
  let isInDoubt = false;
  const statements = callbackStatements();

  function arm(): void {
    if (armed !== undefined) return;
    armed = savepoint.arm();
    const answered = () => {
      arming = undefined;
    };
    // Its failure shows when the savepoint is used.
    arming = armed.then(answered, answered);
  }

  const guard: TransactionGuard = {
    async arm() {
      // Nothing to do: the savepoint is set when a statement needs it.
    },
    async holds() {
      if (armed !== undefined) {
        await arming;
        return savepoint.holds();
      }
      return isInDoubt ? takesStatements(executor) : true;
    },
    // Nothing that could commit was sent, so what is not committed goes with the transaction.
    isUndone: async (limitMs) => (armed === undefined ? true : savepoint.isUndone(limitMs)),
  };

  function query(...args: unknown[]): unknown {
    const [statement] = args;
    const callback = args.find((arg) => typeof arg === 'function');
    const send = (): unknown => Reflect.apply(client.query, client, args);
    if (statements.refusal !== undefined)
      return refuse(statements.refusal(), { statement, callback });
    statements.sent += 1;
    if (!touchesRowsOnly(statement)) arm();
    if (isSubmittable(statement)) {
      isInDoubt = true;
      if (arming === undefined) return send();
      void arming.then(send);
      return statement;
    }
    statements.unanswered += 1;
    if (callback === undefined) return watched(send);
    args[args.indexOf(callback)] = (error: unknown, ...rest: unknown[]) => {
      statements.unanswered -= 1;
      if (error) isInDoubt = true;
      callback(error, ...rest);
    };
    if (arming === undefined) send();
    else void arming.then(send);
    return undefined;
  }

  async function watched(send: () => unknown): Promise<unknown> {
    try {
      if (arming !== undefined) await arming;
      return await send();
    } catch (error) {
      isInDoubt = true;
      throw error;
    } finally {
      statements.unanswered -= 1;
    }
  }

  return {
    // The overloads of pg are kept: every argument is passed on as it came.
    tx: Object.freeze({ query: query as ClientBase['query'] }),
    executor,
    guard,
    statements,
  };
}

/** Says no in the way in which the statement's answer would have come. */
function refuse(
  error: Error,
  { statement, callback }: { statement: unknown; callback: unknown },
): unknown {
  if (typeof callback === 'function') {
    process.nextTick(callback, error);
    return undefined;
  }
  if (isSubmittable(statement)) throw error;
  return Promise.reject(error);
}

/** @throws when the connection is lost */
async function takesStatements(executor: Executor): Promise<boolean> {
  try {
    await executor.execute('select 1');
    return true;
  } catch (error) {
    if (meaningOf(error) === 'no open transaction') return false;
    throw error;
  }
}

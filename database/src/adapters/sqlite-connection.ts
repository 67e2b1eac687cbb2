import type { Executor, OpenTransaction } from '../database.js';
import { executorOn } from '../executor.js';
import { type Columns, type RowOf, readRows } from '../read-rows.js';
import { callbackStatements } from './callback-statements.js';

/** As much of a prepared statement as the SDK uses. */
interface SqliteStatement {
  /** Runs it and gives its rows. */
  all(...values: (string | number | null)[]): unknown[];
  /** Runs it for what it does. */
  run(...values: (string | number | null)[]): unknown;
  /**
   * better-sqlite3 says whether a statement has rows, and refuses `all` where it has none.
   * @default not said: node:sqlite takes `all` for every statement
   */
  readonly reader?: boolean;
}

/** What a Database of better-sqlite3 and a DatabaseSync of node:sqlite have in common. */
export interface SqliteConnection {
  /** Compiles one statement. */
  prepare(sql: string): SqliteStatement;
  /** Runs statements without values. */
  exec(sql: string): unknown;
  /** Closes the file. */
  close(): unknown;
}

const BRINGER = { layer: 'SQLite', hooks: 'what wraps the connection' };

export function sqliteExecutor(connection: SqliteConnection): Executor {
  return executorOn({
    ...BRINGER,
    async send(sql, values) {
      const statement = connection.prepare(sql);
      return statement.reader === false ? statement.run(...values) : statement.all(...values);
    },
  });
}

/** Like `select` of the executor, at once. */
export function selectNow<C extends Columns>(
  connection: SqliteConnection,
  sql: string,
  columns: C,
): RowOf<C>[] {
  return readRows(connection.prepare(sql).all(), columns, BRINGER);
}

/**
 * The connection as a callback sees it: everything it has, until it is refused. The connection is
 * kept, so what runs on it later would be in the transaction of somebody else.
 */
export function watchedConnection<C extends SqliteConnection>(
  connection: C,
): Required<Pick<OpenTransaction<C>, 'tx' | 'statements'>> {
  const statements = callbackStatements();
  const call = (run: () => unknown) => {
    if (statements.refusal !== undefined) throw statements.refusal();
    statements.sent += 1;
    return run();
  };
  return {
    tx: watched(connection, call),
    statements,
  };
}

/** The same object, whose methods, and those of the statements they return, go through `call`. */
function watched<T extends object>(target: T, call: (run: () => unknown) => unknown): T {
  const proxy: T = new Proxy(target, {
    get(_, name) {
      const value: unknown = Reflect.get(target, name, target);
      if (typeof value !== 'function') return value;
      return (...args: unknown[]) => {
        // Native methods want the real object; what returns it is chained, as in `pluck().get()`.
        const result = call(() => Reflect.apply(value, target, args));
        if (result === target) return proxy;
        return isStatement(result) ? watched(result, call) : result;
      };
    },
  });
  return proxy;
}

function isStatement(result: unknown): result is object {
  return (
    typeof result === 'object' &&
    result !== null &&
    'run' in result &&
    typeof result.run === 'function'
  );
}

import type { Executor, OpenTransaction, Row } from '../database.js';
import { callbackStatements } from './callback-statements.js';

/** As much of a prepared statement as the SDK uses. */
interface SqliteStatement {
  all(...values: (string | number | null)[]): unknown[];
  run(...values: (string | number | null)[]): unknown;
  /** better-sqlite3 says whether a statement has rows, and refuses `all` where it has none. */
  readonly reader?: boolean;
  /** node:sqlite has connections that give rows as arrays. */
  setReturnArrays?(enabled: boolean): void;
}

/** What a Database of better-sqlite3 and a DatabaseSync of node:sqlite have in common. */
export interface SqliteConnection {
  prepare(sql: string): SqliteStatement;
  exec(sql: string): unknown;
  close(): unknown;
}

export function sqliteExecutor(connection: SqliteConnection): Executor {
  return {
    async execute(sql, values = []) {
      const statement = connection.prepare(sql);
      statement.setReturnArrays?.(false);
      if (statement.reader !== false) return statement.all(...values) as Row[];
      statement.run(...values);
      return [];
    },
  };
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

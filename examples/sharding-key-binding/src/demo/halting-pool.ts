import type { Pool, PoolConnection } from 'mysql2/promise';

/**
 * Where a producer stands still, so that it can be killed or overtaken at that very place:
 *
 * - `begin`: the prepare is on its way, the local transaction has not begun;
 * - `localCommit`: everything is written, COMMIT has not been sent;
 * - `verdict`: the database has answered COMMIT, the broker has not been told.
 */
export type HaltPoint = 'begin' | 'localCommit' | 'verdict';

/** The statement before which, or after whose answer, that place lies. */
const PLACES: Record<HaltPoint, { sql: string; isBefore: boolean }> = {
  begin: { sql: 'start transaction', isBefore: true },
  localCommit: { sql: 'commit', isBefore: true },
  verdict: { sql: 'commit', isBefore: false },
};

/** The pool, with `halt` awaited at that place of every transaction. The service knows nothing of it. */
export function haltingPool(pool: Pool, at: HaltPoint, halt: () => Promise<void>): Pool {
  return replaceMethod(pool, 'getConnection', async () =>
    haltingConnection(await pool.getConnection(), at, halt),
  );
}

function haltingConnection(
  connection: PoolConnection,
  at: HaltPoint,
  halt: () => Promise<void>,
): PoolConnection {
  const { sql, isBefore } = PLACES[at];
  return replaceMethod(connection, 'query', async (...args: unknown[]) => {
    const isThere = sqlOf(args[0]) === sql;
    if (isThere && isBefore) await halt();
    const result: unknown = await Reflect.apply(connection.query, connection, args);
    if (isThere && !isBefore) await halt();
    return result;
  });
}

function sqlOf(statement: unknown): unknown {
  return typeof statement === 'object' && statement !== null && 'sql' in statement
    ? statement.sql
    : statement;
}

function replaceMethod<T extends object>(
  target: T,
  method: keyof T,
  replacement: (...args: unknown[]) => Promise<unknown>,
): T {
  return new Proxy(target, {
    get(_, name) {
      if (name === method) return replacement;
      const value: unknown = Reflect.get(target, name, target);
      // Methods belong to the target: a class with private fields does not know its proxy.
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}

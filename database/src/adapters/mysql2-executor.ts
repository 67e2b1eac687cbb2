import type { Executor, SqlValue } from '../database.js';
import { executorOn } from '../executor.js';
import type { Mysql2Queryable } from './mysql2-shape.js';
import { answersRows } from './rows.js';

/** SERVER_STATUS_IN_TRANS and SERVER_STATUS_AUTOCOMMIT of MySQL's protocol. */
const IN_TRANSACTION = 0x0001;
const AUTOCOMMIT = 0x0002;

/** What the server says about its session with every answer that carries no rows. */
export interface SessionStatus {
  isInTransaction: boolean;
  isAutocommit: boolean;
}

/** `undefined` for rows, which carry no status. */
export function statusOf(result: unknown): SessionStatus | undefined {
  if (typeof result !== 'object' || result === null || !('serverStatus' in result)) {
    return undefined;
  }
  const status = Number(result.serverStatus);
  return {
    isInTransaction: (status & IN_TRANSACTION) !== 0,
    isAutocommit: (status & AUTOCOMMIT) !== 0,
  };
}

/**
 * Rows as objects of what the server sent, whatever a caller's pool is set to. Only another function
 * takes the place of a function that the pool has for `typeCast`; this one leaves values as they are.
 */
export const AS_OBJECTS = {
  rowsAsArray: false,
  nestTables: false,
  typeCast: (_field: unknown, next: () => unknown) => next(),
};

/** @returns rows, or the header of an answer without rows */
export async function run(
  connection: Mysql2Queryable,
  sql: string,
  values: readonly SqlValue[] = [],
): Promise<unknown> {
  const plain = withoutFormat(connection);
  // mysql2 takes options apart for longer than the rest of its work takes it.
  const [result] = answersRows(sql)
    ? await plain.query({ sql, ...AS_OBJECTS }, [...values])
    : await plain.query(sql, [...values]);
  return result;
}

/** As much of the connection behind one of mysql2/promise as is needed to get past its format. */
interface CoreConnection {
  config?: { queryFormat?: unknown };
  addCommand(command: unknown): unknown;
}

/**
 * The same connection, without the `queryFormat` of its pool. That is made for the statements of the
 * service, whose placeholders it writes in its own way, and mysql2 has no option to leave it out.
 */
function withoutFormat(connection: Mysql2Queryable): Mysql2Queryable {
  const core = (connection as { connection?: CoreConnection }).connection;
  if (typeof core?.config?.queryFormat !== 'function') return connection;
  const plainCore = Object.create(core, {
    config: { value: { ...core.config, queryFormat: undefined } },
    // What queues the statement changes the connection, so it is done by the real one.
    addCommand: { value: (command: unknown) => core.addCommand(command) },
  });
  return Object.create(connection, { connection: { value: plainCore } });
}

export function mysql2Executor(connection: Mysql2Queryable): Executor {
  return executorOn({
    layer: 'mysql2',
    hooks: 'an option of the pool (typeCast, rowsAsArray, nestTables) or what wraps it',
    send: (sql, values) => run(connection, sql, values),
  });
}

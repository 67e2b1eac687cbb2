import type { Executor, Row, SqlValue } from '../database.js';
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

/** Rows as objects, whatever a caller's pool is set to. */
const AS_OBJECTS = { rowsAsArray: false, nestTables: false, typeCast: true };

/** @returns rows, or the header of an answer without rows */
export async function run(
  connection: Mysql2Queryable,
  sql: string,
  values: readonly SqlValue[] = [],
): Promise<unknown> {
  // mysql2 takes options apart for longer than the rest of its work takes it.
  const [result] = answersRows(sql)
    ? await connection.query({ sql, ...AS_OBJECTS }, [...values])
    : await connection.query(sql, [...values]);
  return result;
}

export function mysql2Executor(connection: Mysql2Queryable): Executor {
  return {
    async execute(sql, values) {
      const result = await run(connection, sql, values);
      return Array.isArray(result) ? (result as Row[]) : [];
    },
  };
}

import { setTimeout as pause } from 'node:timers/promises';
import { createPool, type Pool, type PoolConnection, type RowDataPacket } from 'mysql2/promise';

/*
 * The services' own statements, outside of the SDKs. A database behind a black hole answers
 * nothing, so each statement has a limit, and its connection goes with it.
 */

const STATEMENT_MS_MAX = 3_000;
const CONNECT_MS_MAX = 2_000;
const REPEAT_PAUSE_MS = 100;

export const openPool = (uri: string, connectionLimit: number): Pool =>
  createPool({ uri, connectionLimit, maxIdle: connectionLimit, connectTimeout: CONNECT_MS_MAX });

/** @throws whatever the database or the driver threw, or that there was no answer in time */
async function ask<Row extends RowDataPacket>(
  pool: Pool,
  sql: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const connection = await connectionOf(pool);
  try {
    const [rows] = await inTime(connection.query<Row[]>(sql, values), STATEMENT_MS_MAX);
    connection.release();
    return rows;
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

/** The same until it succeeds: for statements that may be repeated. */
export async function askUntilAnswered<Row extends RowDataPacket>(
  pool: Pool,
  sql: string,
  values: unknown[] = [],
): Promise<Row[]> {
  for (;;) {
    try {
      return await ask<Row>(pool, sql, values);
    } catch {
      // Whatever it was: the nemesis is at work, and heals everything in the end.
      await pause(REPEAT_PAUSE_MS);
    }
  }
}

/** A connection that comes too late goes back by itself: a waiter that forgot it would leak it. */
export async function connectionOf(pool: Pool): Promise<PoolConnection> {
  const connecting = pool.getConnection();
  let isLate = false;
  void connecting.then(
    (connection) => isLate && connection.release(),
    () => {},
  );
  try {
    return await inTime(connecting, STATEMENT_MS_MAX);
  } catch (error) {
    isLate = true;
    throw error;
  }
}

/** @throws Error when `work` takes longer; it goes on, and its outcome is nobody's any more */
export async function inTime<T>(work: Promise<T>, limitMs: number): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limitMs} ms`)), limitMs);
  });
  work.catch(() => {});
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

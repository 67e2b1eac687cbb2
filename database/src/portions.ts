import { repeatedSession } from './conflicts.js';
import type { Executor, LocalDatabase } from './database.js';

/** Rows per statement, so that a purge holds few locks and never for long. */
export const PORTION_ROWS_MAX = 1_000;

/** What the SDK does beside the transactions of its callers is not what they wait for. */
const LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };

/**
 * Does the same to a table again and again, each time in a session of its own.
 *
 * @param portion returns how many rows it had, `PORTION_ROWS_MAX` at most: one with fewer is the last
 * @returns the same, portion by portion
 */
export async function* inPortions(
  database: LocalDatabase<unknown>,
  portion: (executor: Executor) => Promise<number>,
): AsyncGenerator<number, void> {
  for (;;) {
    const rows = await repeatedSession(database, portion, LIMITS);
    yield rows;
    if (rows < PORTION_ROWS_MAX) return;
  }
}

/** How many rows all the portions had. */
export async function rowsOf(portions: AsyncIterable<number>): Promise<number> {
  let rows = 0;
  for await (const each of portions) rows += each;
  return rows;
}

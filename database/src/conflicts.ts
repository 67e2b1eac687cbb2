import { setTimeout as sleep } from 'node:timers/promises';
import type { Executor, LocalDatabase, TransactionLimits } from './database.js';
import { meaningOf } from './server-errors.js';

/**
 * Somebody else was first, and the server has rolled back all of the transaction, or of the statement
 * where each commits by itself: a deadlock, a failed certification, a row that has changed under a
 * snapshot. The same may be asked again.
 */
export function isConflict(error: unknown): boolean {
  const meaning = meaningOf(error);
  return meaning === 'deadlock' || meaning === 'not serializable';
}

/**
 * Each attempt begins when another one has come further. Two are enough for a row that somebody was
 * just about to commit; the rest is for a crowd.
 */
const SESSIONS_MAX = 4;
/** Grows with the attempts, and is drawn, so that those who met do not meet again. */
const PAUSE_MS = 10;

/**
 * A session that is had again when others are in its way. MariaDB, from 11.6 on by default, refuses a
 * statement under SERIALIZABLE that has waited for a row which was changed then, even one that stands
 * alone.
 *
 * @param work repeatable: guarded changes, or rows with keys of their own
 * @throws what `session` throws; the conflict, when it came every time
 */
export async function repeatedSession<T>(
  database: LocalDatabase<unknown>,
  work: (executor: Executor) => Promise<T>,
  limits: TransactionLimits,
): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await database.session(work, limits);
    } catch (error) {
      if (!isConflict(error) || attempt >= SESSIONS_MAX) throw error;
      await sleep(Math.random() * PAUSE_MS * attempt);
    }
  }
}

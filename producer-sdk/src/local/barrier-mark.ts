import type { LocalDatabase, TransactionLimits } from '@escrowmq/database';
import { meaningOf, repeatedSession } from '@escrowmq/database';
import { BARRIER_SQL, idValue, storedText, textValue } from './barrier-sql.js';

/*
 * Up to when barrier rows may have been purged, in a row of the barrier table itself. A check that found
 * no row there would take a purged one for a local transaction that never was, and roll back what has
 * committed: it looks here first. So a purge harms nobody, whoever runs it and whatever other processes
 * are set to.
 */

/** An id that no transaction has, next to that of the table's identity. */
const MARK_ROW = '00000000-0000-0000-0000-000000000001';

/** Milliseconds since 1970 as a text that sorts as they do. */
const textOf = (ms: number): string => String(Math.max(0, Math.floor(ms))).padStart(16, '0');

/**
 * The time, by the database's clock, before which barrier rows may have been purged; undefined when none
 * was ever.
 *
 * @throws the layer's error
 */
export async function purgedUntil(
  database: LocalDatabase<unknown>,
  limits: TransactionLimits,
): Promise<number | undefined> {
  const { dialect } = database;
  try {
    const [row] = await repeatedSession(
      database,
      (executor) =>
        executor.select(BARRIER_SQL[dialect].readMark, { data: 'text or null' }, [
          idValue(MARK_ROW),
        ]),
      limits,
    );
    return row?.data === undefined ? undefined : Number(storedText(dialect, row.data));
  } catch (error) {
    // Nothing was ever purged from it.
    if (meaningOf(error) === 'no such table') return undefined;
    throw error;
  }
}

/**
 * Notes that rows of that age may be gone from now on: before the first of them is deleted.
 *
 * @throws the layer's error
 */
export async function markPurged(
  database: LocalDatabase<unknown>,
  ageMs: number,
  limits: TransactionLimits,
): Promise<void> {
  const { dialect } = database;
  const { selectNow, insertKept, raiseMark } = BARRIER_SQL[dialect];
  const [clock] = await repeatedSession(
    database,
    (executor) => executor.select(selectNow, { ms: 'number' }),
    limits,
  );
  if (clock === undefined) throw new Error(`${database.layer} gave no row for the time`);
  const [mark, id] = [textValue(dialect, textOf(clock.ms - ageMs)), idValue(MARK_ROW)];
  if ((await purgedUntil(database, limits)) === undefined) {
    try {
      await repeatedSession(
        database,
        (executor) => executor.execute(insertKept, [id, mark]),
        limits,
      );
    } catch (error) {
      // Somebody else was faster; his may be lower.
      if (meaningOf(error) !== 'duplicate key') throw error;
    }
  }
  await repeatedSession(
    database,
    (executor) => executor.execute(raiseMark, [mark, id, mark]),
    limits,
  );
}

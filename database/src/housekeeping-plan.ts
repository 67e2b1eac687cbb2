import { isClosed, meaningOf } from './server-errors.js';

/*
 * When to purge, and what follows from how it went. Pure: time and chance are parameters.
 */

const SECOND_MS = 1_000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;

/**
 * The first purge comes that long after the start: a service that starts has other work, messages that
 * it had not acknowledged come again and must find their rows, and a migration or a test has ended.
 */
const FIRST_MS = 5 * MINUTE_MS;
/** And up to that much later, so that instances that were started together do not purge together. */
const FIRST_SPREAD_MS = 10 * MINUTE_MS;
/** The part of an interval by which it is shorter or longer: instances that met once part again. */
const JITTER = 0.1;

/** What fails once may be a deadlock, a server that restarts, or a pool that is being closed. */
const RETRY_MS = 10 * SECOND_MS;
/** A failure that lasts is said again at most that often. */
const TELL_AGAIN_MS = 6 * HOUR_MS;

/** Of the time a portion took: a purge holds one connection for a quarter of the time at most. */
const PAUSE_FACTOR = 3;
/** About 10,000 rows a second at most, whatever the database could do. */
const PAUSE_MS_MIN = 100;
const PAUSE_MS_MAX = 5 * SECOND_MS;

/** @param random from 0 to 1 */
export const firstDelayMs = (random: number): number => FIRST_MS + random * FIRST_SPREAD_MS;

/** After a portion of rows, before the next one. */
export const pauseMsAfter = (portionMs: number): number =>
  Math.min(PAUSE_MS_MAX, Math.max(PAUSE_MS_MIN, portionMs * PAUSE_FACTOR));

/** How a purge ended. */
export type Purged = { ended: 'done' } | { ended: 'failed'; error: unknown };

/** What is known from the purges before. Times are ms on a clock that only goes forward. */
export interface Past {
  failuresInARow: number;
  /** When a failure was said last. */
  toldAt?: number;
}

export const NO_PAST: Past = { failuresInARow: 0 };

export type Next =
  /** Nobody can purge here any more, or there is nothing to purge. */
  { next: 'end' } | { next: 'wait'; delayMs: number; isTold: boolean; past: Past };

/** @param chance from 0 to 1 */
export function afterPurge(
  past: Past,
  purged: Purged,
  { now, chance, everyMs }: { now: number; chance: number; everyMs: number },
): Next {
  const delayMs = Math.round(everyMs * (1 + JITTER * (2 * chance - 1)));
  if (purged.ended === 'done') {
    return { next: 'wait', delayMs, isTold: false, past: { ...past, failuresInARow: 0 } };
  }
  if (isOver(purged.error)) return { next: 'end' };
  const failuresInARow = past.failuresInARow + 1;
  if (failuresInARow === 1) {
    const soonMs = Math.min(RETRY_MS * (1 + chance), delayMs);
    return { next: 'wait', delayMs: soonMs, isTold: false, past: { ...past, failuresInARow } };
  }
  const isTold = past.toldAt === undefined || now - past.toldAt >= TELL_AGAIN_MS;
  const told = isTold ? { toldAt: now } : {};
  return { next: 'wait', delayMs, isTold, past: { ...past, ...told, failuresInARow } };
}

/** The service has closed its pool, or the table is not there: that is no failure of anybody's. */
const isOver = (error: unknown): boolean => isClosed(error) || meaningOf(error) === 'no such table';

import type { LocalDatabase } from '@escrowmq/database';

const DAY_MS = 24 * 60 * 60 * 1000;

/** How long barrier rows are kept when nobody says otherwise: a week of outage is survived. */
export const BARRIER_RETENTION_MS = 7 * DAY_MS;

/** Checks stop inserting a day before rows are purged: room for clocks that disagree. */
export const BARRIER_RETENTION_SLACK_MS = DAY_MS;

/**
 * How long housekeeping keeps rows that the broker's calls are answered by, barrier and compensations:
 * twice as long as handlers want them.
 */
export const CALLED_FOR_KEPT_MS = 2 * BARRIER_RETENTION_MS;

/** By what the service itself holds, as two adapters of one pool lead to one barrier. */
const retentions = new WeakMap<object, number>();

/** Called by whoever decides in that database: he needs its rows for that long. */
export function noteRetention(database: LocalDatabase<unknown>, retentionMs: number): void {
  const known = database.on ?? database;
  retentions.set(known, Math.max(retentions.get(known) ?? 0, retentionMs));
}

/** The longest that anybody in this process has noted; 0 where nobody has. */
export const notedRetentionMs = (database: LocalDatabase<unknown>): number =>
  retentions.get(database.on ?? database) ?? 0;

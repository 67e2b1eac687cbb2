import { setImmediate as nextTurn } from 'node:timers/promises';
import { type Database, type Dialect, idBytes, idText, type SqlValue } from './sql.js';

/*
 * Old rows, found without an index: ids sort by their time, so a walk along the primary key from its
 * old end meets them first. What is kept for long stands in the way of every walk, so each looks at a
 * window of it at a time and lets others have their turn in between.
 */

/** The smallest UUIDv7 whose time is `at`; ids sort by time, so it bounds a scan of the key. */
function idAt(at: number): Buffer {
  const hex = Math.max(0, at).toString(16).padStart(12, '0');
  return idBytes(`${hex}00000000000000000000`);
}

/**
 * How far an id's time may run ahead of the store's clock and be found on time; one that runs
 * further ahead waits until its own time is over. What is younger is not looked at: with an hour,
 * as far as an id may be ahead, each pass read all of an hour's rows in vain.
 */
const IDS_AHEAD_MS = 60_000;

/**
 * Rows looked at in one statement. A million messages that wait for a day in a year stand in the way
 * of every pass: as one statement that was four seconds in which SQLite did nothing else, and it
 * began anew for every batch.
 */
const WINDOW_ROWS = 1_000;

/** Before every id. */
export const START: Uint8Array = Buffer.alloc(16);

/** What is looked for among them, as a part of a `where` on `escrow_transaction`. */
export interface Condition {
  sql: string;
  values: readonly SqlValue[];
}

export interface Search {
  condition: Condition;
  /** Ids up to this one are behind us. */
  after: Uint8Array;
  olderThanMs: number;
  limit: number;
  /** Windows looked at before the next search goes on from there. @default all there are */
  windowsMax?: number;
}

export interface FoundRows {
  /** In their order. */
  ids: string[];
  /** Where the next search goes on; absent when there is nothing more. */
  goOnAfter?: Uint8Array;
}

const windowEnd = (byId: string) => `
  select id from escrow_transaction ${byId}
  where id > ? and id < ? order by id limit 1 offset ${WINDOW_ROWS - 1}`;

const inWindow = ({ byId }: Dialect, { sql }: Condition, isLast: boolean) => `
  select id from escrow_transaction ${byId}
  where id > ? and id ${isLast ? '<' : '<='} ? and ${sql}
  order by id limit ?`;

/** Ids of the next rows for which the condition holds. */
export async function findOld(
  database: Database,
  { condition, after, olderThanMs, limit, windowsMax = Number.POSITIVE_INFINITY }: Search,
): Promise<FoundRows> {
  const { dialect } = database;
  const [clock] = await database.all<{ now: number }>(`select ${dialect.now} as now`);
  const bound = idAt((clock?.now ?? 0) - olderThanMs + IDS_AHEAD_MS);
  const ids: string[] = [];
  let start = after;
  for (let windows = 0; windows < windowsMax; windows += 1) {
    await nextTurn();
    const from = Buffer.from(start);
    const [end] = await database.all<{ id: Uint8Array }>(windowEnd(dialect.byId), [from, bound]);
    const text = inWindow(dialect, condition, end === undefined);
    const found = await database.all<{ id: Uint8Array }>(text, [
      from,
      end === undefined ? bound : Buffer.from(end.id),
      ...condition.values,
      limit - ids.length,
    ]);
    ids.push(...found.map(({ id }) => idText(id)));
    const last = found.at(-1);
    if (ids.length >= limit && last !== undefined) return { ids, goOnAfter: last.id };
    if (end === undefined) return { ids };
    start = end.id;
  }
  return { ids, goOnAfter: start };
}

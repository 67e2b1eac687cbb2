import {
  type Housekeeping,
  type HousekeepingNews,
  keepHouse,
  type LocalDatabase,
  parseEveryMs,
} from '@escrowmq/database';
import { type Logger, loggerOf } from './logger.js';

/** How a table is to be kept, parsed. */
export interface Keeping {
  keptMs: number;
  everyMs: number;
  logger: Logger;
}

export interface KeptTable {
  database: LocalDatabase<unknown>;
  table: string;
  /** Of rows, where nobody says otherwise. */
  keptMsDefault: number;
  /** Deletes rows of that age, portion by portion. */
  portions(keptMs: number): AsyncIterable<number>;
}

const DAY_MS = 24 * 60 * 60 * 1000;
const MINUTE_MS = 60 * 1000;

/** @param keeping what somebody asked for: it replaces what runs. @default begins only where nothing runs */
export function keepTable(kept: KeptTable, keeping: Keeping | undefined): Housekeeping {
  const { database, table, keptMsDefault } = kept;
  const { keptMs, everyMs, logger } = keeping ?? {
    keptMs: keptMsDefault,
    everyMs: parseEveryMs(),
    logger: loggerOf(undefined),
  };
  const off =
    keeping === undefined ? '; { housekeeping: false } where it is ensured turns that off' : '';
  const said = { table, keptMs, everyMs, off };
  return keepHouse(
    {
      database,
      table,
      everyMs,
      portions: () => kept.portions(keptMs),
      tell: (news) => tell(news, loggerOf(logger), said),
    },
    keeping === undefined ? 'keep' : 'replace',
  );
}

function tell(
  news: HousekeepingNews,
  logger: Required<Logger>,
  { table, keptMs, everyMs, off }: { table: string; keptMs: number; everyMs: number; off: string },
): void {
  if (news.news === 'on') {
    logger.info(
      { table, keptDays: keptMs / DAY_MS, everyMinutes: everyMs / MINUTE_MS },
      `old rows of ${table} are deleted from now on${off}`,
    );
    return;
  }
  logger.warn(
    { table, error: news.error },
    `old rows of ${table} could not be deleted; it is tried again`,
  );
}

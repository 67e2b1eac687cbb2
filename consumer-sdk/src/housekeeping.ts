import {
  type DatabaseInput,
  databaseOf,
  type Housekeeping,
  parseEveryMs,
  parseKeptMs,
} from '@escrowmq/database';
import { optionNames, refuseUnknown } from '@escrowmq/protocol';
import { CONSUMED_KEPT_MS, keepConsumed, REPEATS_MS_MAX } from './apply/consumed-purge.js';
import { logTo } from './default-log.js';
import type { Log } from './events.js';

/** All times are milliseconds. */
export interface HousekeepingOptions {
  /**
   * Age, by the database's clock, at which rows of `escrow_consumed` are deleted. 30 days at least:
   * for so long a broker knows a message, and may send it again.
   * @default 37 days
   */
  consumedKeptMs?: number;
  /**
   * From one purge to the next, give or take a tenth: from a minute to a day. The first comes 5 to 15
   * minutes after the start.
   * @default 1 hour
   */
  everyMs?: number;
  /** Is told `housekeepingOn` once, and `housekeepingFailed`. @default stderr */
  logger?: Log;
}

const HOUSEKEEPING_OPTIONS = optionNames<HousekeepingOptions>({
  consumedKeptMs: true,
  everyMs: true,
  logger: true,
});

/**
 * Deletes old rows of `escrow_consumed` in this database from now on. What `ensureConsumedTable` begins
 * with the defaults, with settings of your own, which replace those; and for a table that a migration
 * made. Rows of `escrow_latest` stay.
 *
 * Any number of instances may run it. It keeps no process alive, and ends by itself when the pool is
 * closed.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION for times at which a message may still come again;
 *   UNKNOWN_FIELD
 * @example
 * const housekeeping = startHousekeeping(pool, { logger });
 * process.once('SIGTERM', () => void housekeeping.stop());
 */
export function startHousekeeping(
  database: DatabaseInput,
  options: HousekeepingOptions = {},
): Housekeeping {
  refuseUnknown(options, HOUSEKEEPING_OPTIONS, 'startHousekeeping');
  const found = databaseOf(database);
  return keepConsumed(found, {
    keptMs: parseKeptMs('consumedKeptMs', options.consumedKeptMs ?? CONSUMED_KEPT_MS, {
      ms: REPEATS_MS_MAX,
      why: 'a message may come again for as long as its broker knows it, and would be applied twice',
    }),
    everyMs: parseEveryMs(options.everyMs),
    log: logTo(options.logger),
  });
}

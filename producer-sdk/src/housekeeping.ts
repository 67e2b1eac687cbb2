import {
  type DatabaseInput,
  databaseOf,
  type Housekeeping,
  parseEveryMs,
  parseKeptMs,
} from '@escrowmq/database';
import { optionNames, refuseUnknown } from '@escrowmq/protocol';
import { keepCompensations } from './compensation/compensation-purge.js';
import { keepBarrier } from './local/barrier-purge.js';
import {
  BARRIER_RETENTION_MS,
  CALLED_FOR_KEPT_MS,
  notedRetentionMs,
} from './local/barrier-retention.js';
import { type Logger, loggerOf } from './logger.js';
import { keepOutbox, OUTBOX_KEPT_LEAST, OUTBOX_KEPT_MS } from './outbox/outbox-purge.js';

/** All times are milliseconds; ages are by the database's clock. */
export interface HousekeepingOptions {
  /**
   * Age at which rows of `escrow_barrier` and `escrow_compensated` are deleted; later where a check or
   * compensation handler of this process has a longer `barrierRetentionMs`. 7 days at least, and no less than such a one.
   * @default 14 days: twice as long as handlers answer by them
   */
  barrierKeptMs?: number;
  /**
   * Since when rows of `escrow_outbox` are sent, or void, when they are deleted. A day at least.
   * What is unsent or parked is never deleted.
   * @default 7 days
   */
  outboxKeptMs?: number;
  /**
   * From one purge to the next, give or take a tenth: from a minute to a day. The first comes 5 to 15
   * minutes after the start.
   * @default 1 hour
   */
  everyMs?: number;
  /** Is told once that it is on, and of failures. @default stderr */
  logger?: Logger;
}

const HOUSEKEEPING_OPTIONS = optionNames<HousekeepingOptions>({
  barrierKeptMs: true,
  outboxKeptMs: true,
  everyMs: true,
  logger: true,
});

/**
 * Deletes old rows of the producer's tables in this database from now on: of `escrow_barrier`,
 * `escrow_outbox` and `escrow_compensated`, those of them that are there. What `ensureBarrierTable`,
 * `ensureOutboxTable` and `ensureCompensationTable` begin with the defaults, with settings of your own, which replace
 * those; and for tables that a migration made.
 *
 * Any number of instances may run it. It keeps no process alive, and ends by itself when the pool is
 * closed.
 *
 * @param database a pool of mysql2, or what one of the adapters made: `fromPg(pool)`
 * @throws {EscrowError} INVALID_CONFIGURATION for times at which rows may still be asked for;
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
  const everyMs = parseEveryMs(options.everyMs);
  const logger = loggerOf(options.logger);
  const { barrierKeptMs = CALLED_FOR_KEPT_MS, outboxKeptMs = OUTBOX_KEPT_MS } = options;
  const barrier = parseKeptMs('barrierKeptMs', barrierKeptMs, {
    ms: BARRIER_RETENTION_MS,
    why: 'checks and compensations are answered by these rows',
  });
  if (options.barrierKeptMs !== undefined) {
    parseKeptMs('barrierKeptMs', barrierKeptMs, {
      ms: notedRetentionMs(found),
      why: 'a handler in this process has that barrierRetentionMs, and answers by these rows',
    });
  }
  const outbox = parseKeptMs('outboxKeptMs', outboxKeptMs, OUTBOX_KEPT_LEAST);
  const kept = [
    keepBarrier(found, { keptMs: barrier, everyMs, logger }),
    keepCompensations(found, { keptMs: barrier, everyMs, logger }),
    keepOutbox(found, { keptMs: outbox, everyMs, logger }),
  ];
  return {
    async stop() {
      await Promise.all(kept.map((each) => each.stop()));
    },
  };
}

import { EscrowError } from '@escrowmq/protocol';
import cron from 'node-cron';
import type { Config } from './config.js';
import type { Observer, Store } from './domain/ports.js';
import { purgeOnce, tellOverdueOnce } from './engine/retention.js';

export interface HousekeepingDeps {
  config: Pick<
    Config,
    'housekeepingCron' | 'finishedKeptMs' | 'tombstonesKeptMs' | 'unsettledAlertMs'
  >;
  store: Pick<Store, 'purgeFinished' | 'purgeTombstones' | 'tellOverdue' | 'counts'>;
  observer: Pick<Observer, 'alert' | 'count' | 'failed' | 'info'>;
}

/**
 * Retention, tombstones, what has not settled for long, and a line of statistics, by the clock on the wall. Several instances may
 * do it at once: they lock different rows.
 */
export function startHousekeeping({ config, store, observer }: HousekeepingDeps): {
  stop(): Promise<void>;
} {
  const { housekeepingCron, finishedKeptMs, tombstonesKeptMs, unsettledAlertMs } = config;
  if (!cron.validate(housekeepingCron)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      'ESCROW_HOUSEKEEPING_CRON is no cron expression; every five minutes is */5 * * * *',
    );
  }
  let stopping = false;
  let running: Promise<void> = Promise.resolve();

  async function clean(): Promise<void> {
    try {
      const purged = await purgeOnce({
        store,
        finishedKeptMs,
        tombstonesKeptMs,
        observer,
        stopping: () => stopping,
      });
      await tellOverdueOnce({ store, unsettledAlertMs, observer, stopping: () => stopping });
      const { byState } = await store.counts();
      observer.info('housekeeping', { purged, ...byState });
    } catch (error) {
      observer.failed('housekeeping', error);
    }
  }

  const task = cron.schedule(
    housekeepingCron,
    () => {
      running = clean();
      return running;
    },
    { name: 'housekeeping', noOverlap: true, logger: silent },
  );
  return {
    async stop() {
      stopping = true;
      await task.destroy();
      await running;
    },
  };
}

/** node-cron would print its own warnings to the console; an overlap is nothing to tell. */
const silent = {
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
  debug: () => undefined,
};

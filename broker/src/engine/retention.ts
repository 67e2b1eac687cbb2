import type { Observer, Store } from '../domain/ports.js';

/**
 * Takes finished transactions away when their time is over, by the store's clock, in small batches
 * so that nobody waits for them. What is open is never touched; tombstones answer repeats.
 */
export interface RetentionDeps {
  store: Pick<Store, 'purgeFinished' | 'purgeTombstones'>;
  finishedKeptMs: number;
  tombstonesKeptMs: number;
  observer: Pick<Observer, 'count'>;
  /** True ends the pass between two batches. */
  stopping(): boolean;
}

const BATCH_ROWS = 500;

/** One pass: everything that is over. Resolves with how many transactions it purged. */
export async function purgeOnce(deps: RetentionDeps): Promise<number> {
  const { store, finishedKeptMs, tombstonesKeptMs, observer, stopping } = deps;
  const inBatches = async (purge: () => Promise<number>) => {
    let purged = 0;
    while (!stopping()) {
      const count = await purge();
      purged += count;
      if (count < BATCH_ROWS) break;
    }
    return purged;
  };
  const purged = await inBatches(() =>
    store.purgeFinished({ olderThanMs: finishedKeptMs, limit: BATCH_ROWS }),
  );
  await inBatches(() =>
    store.purgeTombstones({ olderThanMs: tombstonesKeptMs, limit: BATCH_ROWS }),
  );
  observer.count('purged', {}, purged);
  return purged;
}

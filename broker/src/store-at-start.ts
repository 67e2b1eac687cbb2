import { isEscrowError } from '@escrowmq/protocol';
import type { Observer, Store } from './domain/ports.js';
import { openStore } from './store/open-store.js';
import type { StoreStanding } from './store-standing.js';

const PAUSE_MS = 1_000;

/**
 * Opens the store; one that does not answer yet is waited for without end, because the broker says by
 * its probes that it waits, and a restart would find it no sooner. What waiting does not change
 * (a wrong password, a missing right, a schema of a newer broker) rejects at once.
 */
export async function openStoreWhenThere(
  url: string,
  {
    standing,
    observer,
  }: { standing: StoreStanding; observer: Pick<Observer, 'failed' | 'recovered'> },
): Promise<Store> {
  for (;;) {
    try {
      const store = await openStore(url);
      standing.opened(store);
      observer.recovered('STORE_UNAVAILABLE');
      return store;
    } catch (error) {
      if (!isEscrowError(error) || error.code !== 'STORE_UNAVAILABLE') throw error;
      standing.waitsFor(error);
      observer.failed('waiting for the store', error);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

import { isEscrowError } from '@escrowmq/protocol';
import type { Store } from './domain/ports.js';
import type { Log } from './observe/log.js';
import { openStore } from './store/open-store.js';

/** A database that is started together with the broker is there within a minute, or is not coming. */
const WAIT_MS_MAX = 60_000;
const PAUSE_MS = 1_000;

/** Opens the store; one that does not answer yet is waited for. */
export async function openStoreWhenThere(url: string, log: Log): Promise<Store> {
  const giveUpAt = performance.now() + WAIT_MS_MAX;
  for (;;) {
    try {
      return await openStore(url);
    } catch (error) {
      const away = isEscrowError(error) && error.code === 'STORE_UNAVAILABLE';
      if (!away || performance.now() > giveUpAt) throw error;
      log.warn('waiting for the store', {}, error);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
  }
}

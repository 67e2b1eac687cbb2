import type { Store } from '../domain/ports.js';
import type { StoreTime } from '../domain/transaction.js';

/**
 * The store's clock, read now and then and carried on by this process's monotonic clock: a wrong
 * or jumping wall clock here changes nothing. What is due the store counts itself; this serves
 * what is computed around it (an id's age, the next back-off, the time in a signature).
 */
export interface StoreClock {
  now(): StoreTime;
  /** Reads the store's clock again. */
  sync(): Promise<void>;
}

export async function createStoreClock(
  store: Pick<Store, 'now'>,
  monotonicMs: () => number = () => performance.now(),
): Promise<StoreClock> {
  let storeAt = 0;
  let readAt = 0;
  async function sync(): Promise<void> {
    const answer = await store.now();
    // The store looked at its clock somewhere between question and answer. Taken for the latest,
    // so that this clock lags by a round trip at most and is never ahead of the store's.
    readAt = monotonicMs();
    storeAt = answer;
  }
  await sync();
  return { now: () => Math.round(storeAt + (monotonicMs() - readAt)), sync };
}

import { type BusinessKeyAnswer, EscrowError, maySettle } from '@escrowmq/protocol';
import type { Observer, Store } from '../domain/ports.js';

/**
 * Answers when everything on a business key has settled, wherever that happens: while somebody
 * waits, the store is asked about all awaited keys in one query per tick.
 */
export interface BusinessKeyWaits {
  /**
   * @param waitMs 0 answers at once
   * @param producerGroup only transactions of this group
   * @param signal ends the wait early, with what is known then
   */
  wait(request: {
    businessKey: string;
    waitMs: number;
    producerGroup: string | undefined;
    signal: AbortSignal;
  }): Promise<BusinessKeyAnswer>;
}

export interface BusinessKeyWaitsDeps {
  store: Pick<Store, 'unsettledOn'>;
  observer: Pick<Observer, 'failed'>;
}

/** How much later than it happened a wait ends; one query for all waits costs about a millisecond. */
const TICK_MS = 25;
/** Each holds a connection; more than this is a mistake or an attack. */
const WAITS_MAX = 2_000;
const KEYS_PER_QUERY_MAX = 500;

type Transactions = BusinessKeyAnswer['transactions'];

interface Wait {
  businessKey: string;
  producerGroup: string | undefined;
  found(transactions: Transactions): void;
}

export function createBusinessKeyWaits({
  store,
  observer,
}: BusinessKeyWaitsDeps): BusinessKeyWaits {
  const waits = new Set<Wait>();
  let ticking = false;

  async function askAbout(group: string | undefined, all: readonly Wait[]): Promise<void> {
    for (let from = 0; from < all.length; from += KEYS_PER_QUERY_MAX) {
      const part = all.slice(from, from + KEYS_PER_QUERY_MAX);
      const keys = [...new Set(part.map(({ businessKey }) => businessKey))];
      const unsettled = await store.unsettledOn(keys, group);
      for (const wait of part) wait.found(unsettled.get(wait.businessKey) ?? []);
    }
  }

  async function tick(): Promise<void> {
    const byGroup = new Map<string | undefined, Wait[]>();
    for (const wait of waits) {
      const all = byGroup.get(wait.producerGroup);
      if (all === undefined) byGroup.set(wait.producerGroup, [wait]);
      else all.push(wait);
    }
    try {
      for (const [group, all] of byGroup) await askAbout(group, all);
    } catch (error) {
      observer.failed('look for settled business keys', error);
    }
    if (waits.size > 0) setTimeout(() => void tick(), TICK_MS);
    else ticking = false;
  }

  return {
    async wait({ businessKey, waitMs, producerGroup, signal }) {
      const unsettled = await store.unsettledOn([businessKey], producerGroup);
      let latest = unsettled.get(businessKey) ?? [];
      if (latest.some(maySettle) && waitMs > 0 && !signal.aborted) {
        if (waits.size >= WAITS_MAX) {
          throw new EscrowError(
            'BROKER_BUSY',
            `${WAITS_MAX} callers wait for business keys already`,
          );
        }
        await new Promise<void>((resolve) => {
          const end = () => {
            clearTimeout(limit);
            signal.removeEventListener('abort', end);
            waits.delete(wait);
            resolve();
          };
          const wait: Wait = {
            businessKey,
            producerGroup,
            found(transactions) {
              latest = transactions;
              if (!transactions.some(maySettle)) end();
            },
          };
          const limit = setTimeout(end, waitMs);
          signal.addEventListener('abort', end);
          waits.add(wait);
          if (!ticking) {
            ticking = true;
            setTimeout(() => void tick(), TICK_MS);
          }
        });
      }
      return { businessKey, settled: latest.length === 0, transactions: latest };
    },
  };
}

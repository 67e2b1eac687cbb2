import type { OverdueSettlement } from '../domain/closing.js';
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

const DAY_MS = 24 * 60 * 60 * 1000;

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

export interface OverdueDeps {
  store: Pick<Store, 'tellOverdue'>;
  /** Counted from the forwarding. */
  unsettledAlertMs: number;
  observer: Pick<Observer, 'alert'>;
  stopping(): boolean;
}

/** Told together, as few alerts as there are causes; their rows are locked until they are told. */
const OVERDUE_ROWS = 2_000;
const EXAMPLES_MAX = 10;

/**
 * One pass: transactions that wait for a word of a group for so long that somebody should look. Each
 * is told once, with all others of its producer group that wait for the same consumer group. They are
 * kept until the word comes or an operator closes them. Resolves with how many transactions it told.
 */
export async function tellOverdueOnce(deps: OverdueDeps): Promise<number> {
  const { store, unsettledAlertMs: olderThanMs, observer, stopping } = deps;
  let told = 0;
  while (!stopping()) {
    const search = { olderThanMs, limit: OVERDUE_ROWS };
    const count = await store.tellOverdue(search, (overdue) => {
      for (const cause of causesOf(overdue)) observer.alert(alertOf(cause, olderThanMs));
    });
    told += count;
    if (count < OVERDUE_ROWS) break;
  }
  return told;
}

interface Cause {
  producerGroup: string;
  consumerGroup: string;
  topics: Set<string>;
  ids: string[];
}

function causesOf(overdue: readonly OverdueSettlement[]): Cause[] {
  const causes = new Map<string, Cause>();
  for (const { id, producerGroup, topics, waitingFor } of overdue) {
    for (const consumerGroup of waitingFor) {
      const key = `${producerGroup}:${consumerGroup}`;
      const cause = causes.get(key) ?? { producerGroup, consumerGroup, topics: new Set(), ids: [] };
      causes.set(key, cause);
      cause.ids.push(id);
      for (const topic of topics) cause.topics.add(topic);
    }
  }
  return [...causes.values()];
}

function alertOf({ producerGroup, consumerGroup, topics, ids }: Cause, olderThanMs: number) {
  const days = Math.round(olderThanMs / DAY_MS);
  const those = ids.length === 1 ? 'a transaction' : `${ids.length} transactions`;
  return {
    kind: 'settlementOverdue' as const,
    producerGroup,
    consumerGroup,
    count: ids.length,
    examples: ids.slice(0, EXAMPLES_MAX),
    detail:
      `${consumerGroup} has not said what became of ${those} forwarded more than ${days} days ago ` +
      `(topics: ${[...topics].slice(0, EXAMPLES_MAX).join(', ')}); kept until it does, or until an operator ` +
      'closes what nobody will consume any more',
  };
}

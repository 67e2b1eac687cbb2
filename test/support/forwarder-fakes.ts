import type {
  ForwardingToSave,
  ForwardToPostpone,
  PublishOutcome,
} from '../../broker/src/domain/ports.js';
import type { Committed } from '../../broker/src/domain/transaction.js';
import { createForwarder, type ForwarderDeps } from '../../broker/src/engine/forwarder.js';
import { createHeldTransactions } from '../../broker/src/engine/held-transactions.js';
import { clockAt, fakePublisher, NOW, recordingObserver } from './engine-fakes.js';

export const ATTEMPTS_MAX = 3;
export const leaseEnd = (inMs = 30_000) => performance.now() + inMs;
export const returned = {
  kind: 'returned',
  detail: '312 NO_ROUTE',
} as const satisfies PublishOutcome;

/** A forwarder between a RabbitMQ and a store that keep a record. */
export function forwarding(
  options: {
    rows?: Committed[];
    publisher?: ReturnType<typeof fakePublisher>;
    store?: Partial<ForwarderDeps['store']>;
  } = {},
) {
  const rows = options.rows ?? [];
  const publisher = options.publisher ?? fakePublisher({ always: { kind: 'confirmed' } });
  const saved: ForwardingToSave[] = [];
  const postponed: ForwardToPostpone[] = [];
  const released: string[] = [];
  const reads: string[][] = [];
  const claims: { limit: number; leaseMs: number }[] = [];
  const observer = recordingObserver();
  const held = createHeldTransactions(1_000_000);
  const forwarder = createForwarder({
    receiptsQueue: 'escrow:receipts:test',
    store: {
      async claimDueForwards({ limit, leaseMs }) {
        claims.push({ limit, leaseMs });
        return { now: NOW, due: rows.slice(0, limit), putOff: 0 };
      },
      async readCommitted(ids) {
        reads.push([...ids]);
        return rows.filter(({ id }) => ids.includes(id));
      },
      async saveForwards(batch) {
        saved.push(...batch);
        return { woken: [] };
      },
      async postponeForwards(batch) {
        postponed.push(...batch);
      },
      async releaseForwards(ids) {
        released.push(...ids);
      },
      ...options.store,
    },
    publisher,
    held,
    clock: clockAt(),
    policy: { undeliverableAttemptsMax: ATTEMPTS_MAX },
    observer,
  });
  return { forwarder, publisher, saved, postponed, released, reads, claims, observer, held };
}

export const sentIds = (publisher: ReturnType<typeof fakePublisher>) =>
  publisher.sent.map(({ messageId }) => messageId);

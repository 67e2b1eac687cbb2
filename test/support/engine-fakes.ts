import { CheckPolicy, messageIdOf } from '@escrowmq/protocol';
import type { Outgoing } from '../../broker/src/domain/outgoing.js';
import type {
  CounterName,
  Observer,
  ProducerGroup,
  Publisher,
  PublishOutcome,
} from '../../broker/src/domain/ports.js';
import { allMessages, type Committed } from '../../broker/src/domain/transaction.js';
import type { StoreClock } from '../../broker/src/engine/store-clock.js';
import { type Deferred, deferred } from './ready.js';
import { newId, newTransaction, type TransactionChanges } from './store-fixtures.js';

/** The store's time in tests of the engine. */
export const NOW = Date.UTC(2026, 0, 1);

export const clockAt = (now = NOW): StoreClock => ({ now: () => now, sync: async () => {} });

export interface RecordingObserver extends Observer {
  alerts: Parameters<Observer['alert']>[0][];
  failures: [what: string, error: unknown][];
  infos: [what: string, facts: Record<string, unknown> | undefined][];
  warnings: [what: string, facts: Record<string, unknown>, about: string][];
  recoveries: string[];
  counts: [name: CounterName, labels: Record<string, string>, by: number][];
}

export function recordingObserver(): RecordingObserver {
  const recorded = {
    alerts: [] as Parameters<Observer['alert']>[0][],
    failures: [] as RecordingObserver['failures'],
    infos: [] as RecordingObserver['infos'],
    warnings: [] as RecordingObserver['warnings'],
    recoveries: [] as string[],
    counts: [] as RecordingObserver['counts'],
  };
  return {
    ...recorded,
    alert: (alert) => recorded.alerts.push(alert),
    failed: (what, error) => recorded.failures.push([what, error]),
    warn: (what, facts, about) => recorded.warnings.push([what, facts, about]),
    recovered: (what) => recorded.recoveries.push(what),
    info: (what, facts) => recorded.infos.push([what, facts]),
    count: (name, labels = {}, by = 1) => recorded.counts.push([name, labels, by]),
  };
}

export const producerGroup = (policy: Partial<CheckPolicy> = {}): ProducerGroup => ({
  name: 'accounts',
  checkUrls: ['http://127.0.0.1:1/check'],
  compensationUrls: ['http://127.0.0.1:1/compensate'],
  checkPolicy: CheckPolicy.parse(policy),
  version: 0,
  signingSecrets: ['whsec_x'],
});

/** An id of the store's present time. */
export const currentId = () => newId(NOW);

export interface CommittedChanges extends TransactionChanges {
  pending?: number;
  attempts?: number;
  decidedAt?: number;
}

/** A committed transaction of which every message is pending, as the store hands it out. */
export function committed(changes: CommittedChanges = {}): Committed {
  const { pending, attempts, decidedAt, ...rest } = changes;
  const { contentHash, messagesJson, mayBePurged, kind, ...kept } = newTransaction({
    id: currentId(),
    preparedAt: NOW,
    ...rest,
  });
  return {
    ...kept,
    pending: pending ?? allMessages(kept.messages.length),
    attempts: attempts ?? 0,
    decidedAt: decidedAt ?? NOW,
  };
}

export interface FakePublisher extends Publisher {
  /** Every message in the order of publishing. */
  sent: Outgoing[];
  /** The confirm or whatever else became of one message; the oldest with this id that waits. */
  answer(id: string, number: number, outcome?: PublishOutcome): void;
  room: number;
}

/** A RabbitMQ that answers when the test says so, or at once with `always`. */
export function fakePublisher(
  options: { room?: number; always?: PublishOutcome } = {},
): FakePublisher {
  const sent: Outgoing[] = [];
  const waiting: { messageId: string; outcome: Deferred<PublishOutcome> }[] = [];
  const publisher: FakePublisher = {
    sent,
    room: options.room ?? 1_000,
    status: 'connected',
    async publish(message) {
      sent.push(message);
      publisher.room -= 1;
      try {
        if (options.always !== undefined) return options.always;
        const outcome = deferred<PublishOutcome>();
        waiting.push({ messageId: message.messageId, outcome });
        return await outcome.promise;
      } finally {
        publisher.room += 1;
      }
    },
    answer(id, number, outcome = { kind: 'confirmed' }) {
      const messageId = messageIdOf(id, number);
      const index = waiting.findIndex((entry) => entry.messageId === messageId);
      const [entry] = waiting.splice(index, index < 0 ? 0 : 1);
      if (entry === undefined) throw new Error(`${messageId} is not in flight`);
      entry.outcome.resolve(outcome);
    },
  };
  return publisher;
}

import {
  type CompensationRequest,
  createCoalescer,
  EscrowError,
  messageIdOf,
} from '@escrowmq/protocol';
import type {
  CompensationCaller,
  CompensationKey,
  CompensationOutcome,
  CompensationToSave,
  DueCompensation,
  Reversed,
} from '../domain/compensations.js';
import type { Observer, ProducerGroup, Store } from '../domain/ports.js';
import { backOffMs } from '../domain/schedule.js';
import type { StoreClock } from './store-clock.js';

/**
 * Calls producers to compensate messages that a consumer group has given up for good.
 *
 * What is owed is called until the producer acknowledges it, however long that takes: it is never
 * given up, only alerted. The producer runs it once, by its own table; here it may be called more
 * than once. A consumer group that consumes the message after all, from its dead letters, withdraws
 * what is owed; where the producer has acknowledged it, or may have run it, somebody is told.
 *
 * A crash after the claim: the lease runs out and another call follows. A crash after the answer and
 * before it is saved: the same, and the producer acknowledges what it finds done.
 */
export interface CompensatorDeps {
  store: Pick<
    Store,
    'claimDueCompensations' | 'saveCompensations' | 'releaseCompensations' | 'saveReceipts'
  >;
  caller: CompensationCaller;
  findGroup(name: string): Promise<ProducerGroup | undefined>;
  clock: StoreClock;
  /** In [0, 1), for jitter. */
  random(): number;
  observer: Pick<Observer, 'alert' | 'failed' | 'warn' | 'count'>;
}

export interface Compensator {
  /** One pass: claims what is due and calls; resolves with how many it began. */
  compensateOnce(): Promise<number>;
  /** Saves receipts, and with them what they mean for compensations. */
  takeReceipts: Store['saveReceipts'];
  /** Resolves when no call is under way. */
  idle(): Promise<void>;
}

/** As many as checks, and for the same reason: a few groups that hang do not take all of it. */
const CONCURRENT_MAX = 256;
/** Longer than the longest answer a policy may wait for (30 s), so that no call runs twice. */
const LEASE_MS = 45_000;
const SAVE_ROWS_MAX = 100;
/** The column that it is shown from. */
const FAILURE_CHARS_MAX = 500;

/** For a group that vanished, which only a restored backup can bring about. */
const NO_POLICY = { firstDelayMs: 10_000, delayMsMax: 300_000, alertAfterMs: 3_600_000 };

const requestOf = (due: DueCompensation): CompensationRequest => ({
  id: due.id,
  producerGroup: due.producerGroup,
  ...(due.checkContext === undefined ? {} : { checkContext: due.checkContext }),
  businessKeys: due.businessKeys,
  preparedAt: due.preparedAt,
  ...(due.sent === undefined ? {} : { sent: due.sent }),
  consumerGroup: due.consumerGroup,
  message: due.message,
  messageId: messageIdOf(due.id, due.message),
  ...(due.failedAttempts === undefined ? {} : { attempts: due.failedAttempts }),
  ...(due.cause === undefined ? {} : { cause: due.cause }),
  attempt: due.attempts,
});

const named = ({ message, consumerGroup }: CompensationKey) =>
  `message ${message} for ${consumerGroup}`;

export function createCompensator(deps: CompensatorDeps): Compensator {
  const { store, caller, clock, observer } = deps;
  const underWay = new Set<Promise<void>>();

  const saves = createCoalescer<CompensationToSave, undefined>({
    async flush(batch) {
      const producerGroups = new Map(batch.map(({ due }) => [due.id, due.producerGroup]));
      for (const key of await store.saveCompensations(batch)) {
        const producerGroup = producerGroups.get(key.id) ?? '';
        tellReversed({ ...key, producerGroup, acknowledged: true });
      }
      return batch.map(() => undefined);
    },
    batchMax: SAVE_ROWS_MAX,
    waitingMax: CONCURRENT_MAX * 2,
    refuse: () => new EscrowError('BROKER_BUSY', 'too many compensations wait for the store'),
  });

  function tellReversed({ acknowledged, id, producerGroup, ...what }: Reversed): void {
    const was = acknowledged
      ? 'was compensated'
      : 'may have been compensated, by a call that got no answer,';
    observer.alert({
      kind: 'consumedAfterCompensation',
      transactionId: id,
      producerGroup,
      detail: `${named(what as CompensationKey)} ${was} and was consumed after all`,
    });
  }

  async function call(
    due: DueCompensation,
    group: ProducerGroup | undefined,
  ): Promise<CompensationOutcome> {
    if (group === undefined) {
      const detail = `producer group ${due.producerGroup} is not registered`;
      return { kind: 'unanswered', tookMs: 0, detail };
    }
    if (group.compensationUrls.length === 0) {
      const detail = 'the producer group has registered no compensation URL';
      return { kind: 'unanswered', tookMs: 0, detail };
    }
    return caller.compensate(group, requestOf(due), due.trace);
  }

  async function compensate(due: DueCompensation, group: ProducerGroup | undefined): Promise<void> {
    const outcome = await call(due, group);
    const isAcknowledged = outcome.kind === 'acknowledged';
    observer.count('compensations', { outcome: isAcknowledged ? 'acknowledged' : 'none' });
    if (isAcknowledged) return void (await saves.call({ due, result: { kind: 'acknowledged' } }));

    const { endpoint, detail } = outcome;
    const { producerGroup } = due;
    const facts = { producerGroup, transactionId: due.id, endpoint, detail };
    const about = `${producerGroup} ${endpoint}`;
    observer.warn('a compensation has no acknowledgement and is called again', facts, about);
    const policy = group?.checkPolicy ?? NO_POLICY;
    const now = clock.now();
    // Without a URL, waiting helps nobody: somebody must register one.
    const nowhere = (group?.compensationUrls.length ?? 0) === 0;
    const overdue = nowhere || now - due.requestedAt >= policy.alertAfterMs;
    if (overdue && !due.alerted) tellUnanswered(due, outcome.detail);
    const result = {
      kind: 'unanswered' as const,
      called: outcome.endpoint !== undefined,
      dueAt: now + backOffMs({ ...policy, jitter: deps.random() }, due.failures + 1),
      lastFailure: outcome.detail.slice(0, FAILURE_CHARS_MAX),
      alerted: due.alerted || overdue,
    };
    await saves.call({ due, result });
  }

  /** Told before it is saved: a crash in between tells it twice, the other order never. */
  function tellUnanswered(due: DueCompensation, detail: string): void {
    observer.alert({
      kind: 'compensationUnanswered',
      transactionId: due.id,
      producerGroup: due.producerGroup,
      detail: `${named(due)}: ${detail}`,
    });
  }

  /** Begins a call, unless its group's endpoints have no room for it. */
  function begin(due: DueCompensation, group: ProducerGroup | undefined): boolean {
    if (group !== undefined && caller.roomFor(group) <= 0) return false;
    const running = compensate(due, group)
      // The lease runs out and the call is repeated.
      .catch((error) => observer.failed(`compensate ${named(due)} of ${due.id}`, error))
      .finally(() => underWay.delete(running));
    underWay.add(running);
    return true;
  }

  return {
    async compensateOnce() {
      const limit = CONCURRENT_MAX - underWay.size;
      if (limit <= 0) return 0;
      const { due } = await store.claimDueCompensations({
        limit,
        leaseMs: LEASE_MS,
        exceptGroups: caller.busyGroups(),
      });
      const groups = new Map<string, ProducerGroup | undefined>();
      for (const { producerGroup } of due) {
        if (!groups.has(producerGroup))
          groups.set(producerGroup, await deps.findGroup(producerGroup));
      }
      // What one group's endpoints have no room for must not take another group's place.
      const tooMany = due.filter((item) => !begin(item, groups.get(item.producerGroup)));
      if (tooMany.length > 0) await store.releaseCompensations(tooMany);
      return due.length;
    },
    async takeReceipts(receipts) {
      const saved = await store.saveReceipts(receipts);
      for (const reversed of saved.reversed) tellReversed(reversed);
      return saved;
    },
    async idle() {
      await Promise.all(underWay);
      await saves.idle();
    },
  };
}

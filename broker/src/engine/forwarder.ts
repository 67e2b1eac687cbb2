import { createCoalescer, EscrowError, type HistoryEvent } from '@escrowmq/protocol';
import { forwarded } from '../domain/decide.js';
import { outgoingOf } from '../domain/outgoing.js';
import type {
  ForwardingToSave,
  ForwardToPostpone,
  Observer,
  Publisher,
  Store,
} from '../domain/ports.js';
import type { ForwardPolicy } from '../domain/schedule.js';
import type { StoreTime } from '../domain/transaction.js';
import {
  type Published,
  readyOf,
  type Summary,
  summarise,
  type ToForward,
  toForwardAt,
} from './forward-round.js';
import type { HeldTransactions } from './held-transactions.js';
import type { StoreClock } from './store-clock.js';
import { createTopicTrouble } from './topic-trouble.js';

/**
 * Publishes committed transactions and records what RabbitMQ confirmed.
 *
 * Whoever moved a row to committed forwards it, from memory or by one batched read, for as long as
 * its lease lasts. Everything else comes through `recoverOnce`, which leases due rows: those whose
 * instance died, whose publish failed, that came while RabbitMQ was away or the window was full.
 *
 * Marked after the confirm, never before: a crash in between repeats a message, the other order
 * loses one. Consumers drop repeats by message id. Each confirmed message clears its bit, so a
 * transaction of which one message is unroutable does not send the others again.
 *
 * Messages may have to wait after the commit. Only what may go is published; the row stays
 * committed, and is due again when the first of the rest may go. Nothing waits in memory. What may
 * go is judged by a time that the store told: a row that recovery leased by the time of its claim;
 * one that was read without a lock by the time of its commit, because after that a message which
 * waits may be cancelled, up to the claim that finds it due. A crash before the row is due again
 * at the right time: the lease ends, recovery finds nothing to do yet, and says when.
 *
 * Of the messages of one ordering key only the first in line is published. The save that takes it
 * out of the line leases the transaction of the next one, in the same database transaction, to this
 * instance, which goes on with it at once as with what it has just moved to committed.
 */
export interface ForwarderDeps {
  store: Pick<
    Store,
    'claimDueForwards' | 'readCommitted' | 'saveForwards' | 'postponeForwards' | 'releaseForwards'
  >;
  publisher: Publisher;
  held: HeldTransactions;
  clock: StoreClock;
  policy: ForwardPolicy;
  /** Where consumers send their receipts. */
  receiptsQueue: string;
  observer: Pick<Observer, 'alert' | 'failed' | 'warn' | 'count'>;
}

export interface Forwarder {
  leaseMs(): number;
  forwardMoved(ids: string[], leaseEndsAt: number): void;
  /** One pass over what is due; resolves with how many transactions it took. */
  recoverOnce(): Promise<number>;
  /** From now on it goes on with no key: the next of a long line is left to others, due at once. */
  stop(): void;
  /** Resolves when nothing is in hand any more. */
  idle(): Promise<void>;
}

/** Three times the publisher's own limit for a confirm: what is in flight ends before its lease. */
const LEASE_MS = 30_000;
/** Nothing is begun this close to the end of its lease: a confirm may take its full limit. */
const LEASE_MARGIN_MS = 12_000;
/**
 * Delayed messages come due together, and each pass costs the database a sync: of 40,000 due at
 * once, MariaDB let 2,400 to 4,300 go in a second by 200, 5,000 to 6,700 by 500, and no more by
 * 1,000. SQLite let 5,100 to 5,900 go either way.
 */
const CLAIM_ROWS_MAX = 500;
const CLAIM_BYTES_MAX = 8 * 1024 * 1024;
const SAVE_ROWS_MAX = 500;
/** Bounded by the publish window; this only guards against a mistake of ours. */
const WAITING_SAVES_MAX = 100_000;

export function createForwarder(deps: ForwarderDeps): Forwarder {
  const { store, publisher, held, clock, policy, observer } = deps;
  const trouble = createTopicTrouble(observer);
  /** Transactions being published here; none is taken up twice at a time. */
  const inHand = new Set<string>();
  /** Flushes whose transactions wait for their turn, or are read because they were not in memory. */
  let taking = 0;
  let stopped = false;
  let onProgress: (() => void)[] = [];

  const saves = createCoalescer<ForwardingToSave, undefined>({
    flush: async (batch) => {
      const leaseMs = leaseNowMs();
      const leaseEndsAt = performance.now() + leaseMs;
      const { woken } = await store.saveForwards(batch, leaseMs);
      if (leaseMs > 0 && woken.length > 0) forwardMoved(woken, leaseEndsAt);
      return batch.map(() => undefined);
    },
    batchMax: SAVE_ROWS_MAX,
    keyOf: (item) => item.id,
    waitingMax: WAITING_SAVES_MAX,
    refuse: () => new EscrowError('BROKER_BUSY', 'too many confirms wait for the store'),
  });

  const postponements = createCoalescer<ForwardToPostpone, undefined>({
    flush: async (batch) => {
      await store.postponeForwards(batch);
      return batch.map(() => undefined);
    },
    batchMax: SAVE_ROWS_MAX,
    keyOf: ({ id }) => id,
    waitingMax: WAITING_SAVES_MAX,
    refuse: () => new EscrowError('BROKER_BUSY', 'too many postponements wait for the store'),
  });

  const releases = createCoalescer<string, undefined>({
    flush: async (ids) => {
      await store.releaseForwards(ids);
      return ids.map(() => undefined);
    },
    batchMax: SAVE_ROWS_MAX,
    keyOf: (id) => id,
    waitingMax: WAITING_SAVES_MAX,
    refuse: () => new EscrowError('BROKER_BUSY', 'too many releases wait for the store'),
  });

  const progress = () => new Promise<void>((resolve) => onProgress.push(resolve));

  function progressed(): void {
    if (onProgress.length === 0) return;
    for (const wake of onProgress) wake();
    onProgress = [];
  }

  /** Due at once, for recovery. Should this fail, the lease's end does the same, later. */
  function letGo(id: string): void {
    releases.call(id).catch((error) => observer.failed('release a committed transaction', error));
  }

  /** Due when its first message may go. Should this fail, the lease's end finds out again. */
  function postpone(id: string, dueAt: StoreTime): void {
    postponements
      .call({ id, dueAt })
      .catch((error) => observer.failed('postpone a committed transaction', error));
  }

  function forward(transaction: ToForward): void {
    inHand.add(transaction.id);
    try {
      publishReady(transaction);
    } catch (error) {
      // What can't be made into a message must not take along the rest of its batch.
      observer.failed('publish a committed transaction', error);
      finished(transaction.id);
    }
  }

  /** Publishes what may go, and records the result when each message has its outcome. */
  function publishReady(transaction: ToForward): void {
    const { receiptsQueue } = deps;
    const round = readyOf(transaction);
    let unanswered = round.length;
    if (unanswered === 0) void record(transaction, round);
    // Counted down in callbacks: an async function for each message and one around them made seven
    // promises and 2 µs of a transaction with one message.
    for (const published of round) {
      const { number, message } = published;
      const outgoing = outgoingOf({ transaction, number, message, receiptsQueue });
      void publisher.publish(outgoing).then((outcome) => {
        published.outcome = outcome;
        unanswered -= 1;
        if (unanswered === 0) void record(transaction, round);
      });
    }
  }

  /** Never rejects. */
  async function record(transaction: ToForward, round: readonly Published[]): Promise<void> {
    try {
      await saves.call(resultOf(transaction, round));
    } catch (error) {
      // The store did not take the result: the lease runs out and the messages are sent again.
      observer.failed('record forwarded messages', error);
    } finally {
      finished(transaction.id);
    }
  }

  function finished(id: string): void {
    inHand.delete(id);
    progressed();
  }

  function resultOf(transaction: ToForward, outcomes: readonly Published[]): ForwardingToSave {
    const result = summarise(outcomes);
    for (const { message, outcome } of outcomes) {
      observer.count('publishes', { outcome: outcome.kind });
      if (outcome.kind !== 'confirmed') trouble.saw(transaction, message, outcome);
    }
    const now = clock.now();
    const { id, pending, attempts, nextDueAt, places } = transaction;
    const blocked = transaction.blocked !== 0;
    const current = { state: 'committed', pending, attempts, dueAt: now } as const;
    const outcome = forwarded(current, { ...result, nextDueAt, blocked }, policy, now);
    const to = outcome.kind === 'move' ? outcome.to : current;
    const history: HistoryEvent[] = [];
    if (result.unrouted !== 0) {
      history.push({ at: now, event: 'unrouted', detail: { messages: result.unroutedIds } });
    }
    if (to.state === 'parked') {
      const detail = { reason: 'undeliverable', failure: result.detail, attempts: attempts + 1 };
      history.push({ at: now, event: 'parked', detail });
    } else if (result.failure === 'unroutable' || result.failure === 'refused') {
      history.push({ at: now, event: 'forwardFailed', detail: { failure: result.detail } });
    }
    alertOn(transaction, to.state, result);
    return {
      id,
      done: result.done,
      unrouted: result.unrouted,
      to,
      ...(to.state === 'committed' && to.attempts === attempts ? { onlyWaits: true } : {}),
      ...(places === undefined ? {} : { places }),
      ...(result.detail === undefined ? {} : { lastFailure: result.detail }),
      history,
    };
  }

  /** Told before it is saved: a crash in between tells it twice, the other order never. */
  function alertOn(transaction: ToForward, state: string, { failure, detail }: Summary): void {
    if (failure === undefined || failure === 'interrupted') return;
    const about = {
      transactionId: transaction.id,
      producerGroup: transaction.producerGroup,
      detail: detail ?? failure,
    };
    if (state === 'parked') observer.alert({ kind: 'parked', ...about });
    // After about an hour of trying; it goes on.
    else if (transaction.attempts + 1 === policy.undeliverableAttemptsMax) {
      observer.alert({ kind: 'forwardFailing', ...about });
    }
  }

  /** Forwards what fits now and lets go of the rest. */
  function forwardNow(transactions: readonly ToForward[], leaseEndsAt: number): void {
    const late = performance.now() > leaseEndsAt - LEASE_MARGIN_MS;
    for (const transaction of transactions) {
      // A slow read may come after recovery took the same row: it keeps its lease and its turn.
      if (inHand.has(transaction.id)) continue;
      const { id, ready, nextDueAt, blocked } = transaction;
      if (ready === 0 && (nextDueAt !== undefined || blocked !== 0)) wait(transaction);
      else if (late || publisher.room < transaction.messages.length) letGo(id);
      else forward(transaction);
    }
  }

  /**
   * Nothing of it may go now. What waits for others of its key is woken by them, which a postponement
   * written without a lock could undo: it keeps its lease, or is claimed when something in it waits
   * for a time, because a claim locks the row and says when it is due.
   */
  function wait({ id, nextDueAt, blocked }: ToForward): void {
    if (nextDueAt === undefined) return;
    if (blocked === 0) postpone(id, nextDueAt);
    else letGo(id);
  }

  async function takeAndForward(ids: string[], leaseEndsAt: number): Promise<void> {
    const absent: string[] = [];
    const here: ToForward[] = [];
    for (const id of ids) {
      const transaction = held.take(id);
      if (transaction === undefined) absent.push(id);
      else here.push(transaction);
    }
    forwardNow(here, leaseEndsAt);
    if (absent.length === 0) return;
    try {
      const rows = await store.readCommitted(absent);
      forwardNow(
        rows.map((row) => toForwardAt(row, row.decidedAt)),
        leaseEndsAt,
      );
    } catch (error) {
      observer.failed('read committed transactions', error);
    }
  }

  const leaseNowMs = () => (publisher.room > 0 && !stopped ? LEASE_MS : 0);

  function forwardMoved(ids: string[], leaseEndsAt: number): void {
    taking += 1;
    // After the callers have their answers, which are durable already: they go on meanwhile. What
    // was saved is no longer in hand by then, and may be what goes on.
    setImmediate(async () => {
      await takeAndForward(ids, leaseEndsAt);
      taking -= 1;
      progressed();
    });
  }

  return {
    leaseMs: leaseNowMs,
    forwardMoved,
    async recoverOnce() {
      // A full window empties as RabbitMQ confirms; one that is closed has nothing in hand.
      while (publisher.room === 0 && inHand.size > 0) await progress();
      // Claims only what the window can take now, so that nothing waits here on its lease.
      const limit = Math.min(publisher.room, CLAIM_ROWS_MAX);
      if (limit === 0) return 0;
      const leaseEndsAt = performance.now() + LEASE_MS;
      const claim = { limit, bytesMax: CLAIM_BYTES_MAX, leaseMs: LEASE_MS };
      const { now, due, putOff } = await store.claimDueForwards(claim);
      for (const transaction of due) {
        // What is in flight here stays leased; its own result comes first.
        if (inHand.has(transaction.id)) continue;
        while (publisher.room < transaction.messages.length && inHand.size > 0) await progress();
        forwardNow([toForwardAt(transaction, now)], leaseEndsAt);
      }
      return due.length + putOff;
    },
    stop() {
      stopped = true;
    },
    async idle() {
      while (inHand.size > 0 || taking > 0) await progress();
      await Promise.all([saves.idle(), postponements.idle(), releases.idle()]);
    },
  };
}

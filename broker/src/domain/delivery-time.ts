import { anyOrdered, blockedOf } from './ordering.js';
import {
  type Committed,
  hasMessage,
  type Message,
  type MessageMask,
  messageBit,
  type StoreTime,
} from './transaction.js';

/*
 * When a message may leave. The row holds no such time: it follows from the message and from when
 * its transaction was committed, both of which never change again. The row's own `due_at` is only
 * the wake-up; whoever woke up too early finds here that nothing may go yet.
 */

/** Waits for a time of its own, which may be over already. */
export const isDelayed = ({ deliverAt, delayMs }: Message): boolean =>
  deliverAt !== undefined || delayMs !== undefined;

/**
 * True when a message of these may have to wait after the commit. Such a transaction is never held
 * in memory: what of it may go is read from the store, and the rest waits there.
 */
export const mustWait = (messages: readonly Message[]): boolean =>
  messages.some(isDelayed) || anyOrdered(messages);

/** Before this time of the store's clock the message must not reach RabbitMQ. */
export const dueAtOf = ({ deliverAt, delayMs = 0 }: Message, decidedAt: StoreTime): StoreTime =>
  deliverAt ?? decidedAt + delayMs;

/** How long the first of the messages of a send must wait that is inserted now; 0: one may go at once. */
export const untilFirstMs = (messages: readonly Message[], now: StoreTime): number =>
  Math.max(0, Math.min(...messages.map((message) => dueAtOf(message, now))) - now);

/** The pending messages of a transaction, by what may be done about them now. */
export interface PendingParts {
  /** May be published. */
  ready: MessageMask;
  /** Must not be published yet. */
  waiting: MessageMask;
  /** When the first of `waiting` is to be looked at again; absent when nothing waits. */
  nextDueAt: StoreTime | undefined;
  /** Must let others of their ordering key go first; whoever leaves that place makes them due. */
  blocked: MessageMask;
}

type Waiting = Pick<Committed, 'messages' | 'pending' | 'decidedAt' | 'places'>;

/** The time until which a pending message waits; undefined when it may go. */
function waitsUntil(message: Message, row: Waiting, now: StoreTime): StoreTime | undefined {
  const dueAt = dueAtOf(message, row.decidedAt);
  return dueAt > now ? dueAt : undefined;
}

/** @param now a time that the store's clock has reached, never one that it may reach soon */
export function splitPending(row: Waiting, now: StoreTime): PendingParts {
  let ready = 0;
  let waiting = 0;
  let nextDueAt: StoreTime | undefined;
  const blocked = blockedOf(row);
  row.messages.forEach((message, number) => {
    if (!hasMessage(row.pending, number) || hasMessage(blocked, number)) return;
    const until = waitsUntil(message, row, now);
    if (until === undefined) {
      ready += messageBit(number);
      return;
    }
    waiting += messageBit(number);
    nextDueAt = Math.min(nextDueAt ?? until, until);
  });
  return { ready, waiting, nextDueAt, blocked };
}

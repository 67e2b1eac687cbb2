import type { Forwarding } from '../domain/decide.js';
import { splitPending } from '../domain/delivery-time.js';
import type { PublishOutcome } from '../domain/ports.js';
import {
  allMessages,
  type Committed,
  hasMessage,
  type MessageMask,
  messageBit,
  type NewTransaction,
  type StoreTime,
} from '../domain/transaction.js';

/*
 * One round of forwarding: what of a transaction is to be published, and what the outcomes of its
 * messages say together.
 */

/** What forwarding needs of a transaction. */
export interface ToForward
  extends Pick<
    Committed,
    | 'id'
    | 'producerGroup'
    | 'expects'
    | 'trace'
    | 'preparedAt'
    | 'messages'
    | 'pending'
    | 'attempts'
    | 'places'
  > {
  /** Unknown of what was held in memory since its prepare; nothing of that ever waits. */
  decidedAt: StoreTime | undefined;
  /** Those of `pending` that may be published in this round. */
  ready: MessageMask;
  /** When the first of the others may be; absent when all that is pending is ready. */
  nextDueAt: StoreTime | undefined;
  /** Those of `pending` that must let others of their ordering key go first. */
  blocked: MessageMask;
}

/** All of it, and nothing that only the store needed: the messages' text, the hash, the keys. */
export function toForward(transaction: NewTransaction): ToForward {
  const { id, producerGroup, expects, trace, preparedAt, messages } = transaction;
  const pending = allMessages(messages.length);
  return {
    id,
    producerGroup,
    expects,
    trace,
    preparedAt,
    messages,
    pending,
    attempts: 0,
    decidedAt: undefined,
    ready: pending,
    nextDueAt: undefined,
    blocked: 0,
  };
}

/** A row from the store, and what of it may go at that time. */
export function toForwardAt(row: Committed, now: StoreTime): ToForward {
  const { id, producerGroup, expects, trace, preparedAt, messages } = row;
  const { pending, attempts, decidedAt, places } = row;
  const { ready, nextDueAt, blocked } = splitPending(row, now);
  return {
    id,
    producerGroup,
    expects,
    trace,
    preparedAt,
    messages,
    pending,
    attempts,
    decidedAt,
    ready,
    nextDueAt,
    blocked,
    ...(places === undefined ? {} : { places }),
  };
}

export interface Published {
  number: number;
  message: Committed['messages'][number];
  outcome: PublishOutcome;
}

/** Taken for unconfirmed until there is an outcome. */
const UNANSWERED: PublishOutcome = { kind: 'unconfirmed', detail: 'there is no outcome yet' };

export function readyOf({ messages, ready }: ToForward): Published[] {
  const round: Published[] = [];
  messages.forEach((message, number) => {
    if (hasMessage(ready, number)) round.push({ number, message, outcome: UNANSWERED });
  });
  return round;
}

export interface Summary extends Forwarding {
  unrouted: MessageMask;
  unroutedIds: number[];
  detail?: string;
}

const FAILURES = {
  returned: 'unroutable',
  nacked: 'nacked',
  unconfirmed: 'unconfirmed',
  interrupted: 'interrupted',
  refused: 'refused',
} as const;

/** The worst of a round decides how to go on: what may never end before what surely will. */
const SEVERITY = ['interrupted', 'unconfirmed', 'nacked', 'unroutable', 'refused'] as const;

export function summarise(outcomes: readonly Published[]): Summary {
  const summary: Summary = { done: 0, unrouted: 0, unroutedIds: [] };
  let worst = -1;
  for (const { number, message, outcome } of outcomes) {
    if (outcome.kind === 'confirmed') {
      summary.done += messageBit(number);
      continue;
    }
    if (outcome.kind === 'returned' && message.ifUnrouted === 'drop') {
      summary.done += messageBit(number);
      summary.unrouted += messageBit(number);
      summary.unroutedIds.push(number);
      continue;
    }
    const failure = FAILURES[outcome.kind];
    const severity = SEVERITY.indexOf(failure);
    if (severity <= worst) continue;
    worst = severity;
    summary.failure = failure;
    summary.detail = `message ${number}: ${outcome.detail}`.slice(0, 500);
  }
  return summary;
}

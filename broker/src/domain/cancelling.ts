import type { StateName } from '@escrowmq/protocol';
import { dueAtOf, isDelayed } from './delivery-time.js';
import {
  hasMessage,
  type Message,
  type MessageMask,
  messageBit,
  type StoreTime,
} from './transaction.js';

/*
 * Which messages may be taken back after the commit: those that wait for their time, until it has
 * come. By then they may be on their way, and no store can call them back.
 */

/** Where a row and its messages stand when somebody asks to cancel some of them. */
export interface Cancellable {
  state: StateName;
  /** It has no decision yet. */
  undecided: boolean;
  messages: readonly Message[];
  pending: MessageMask;
  unrouted: MessageMask;
  cancelled: MessageMask;
  decidedAt: StoreTime;
}

/** Why a message can't be cancelled. */
export type NotCancellable =
  /** What has to be taken back is the whole transaction, by a rollback. */
  'undecided' | 'rolledBack' | 'notDelayed' | 'due' | 'forwarded' | 'unrouted';

export type CancelRefusal =
  | {
      kind: 'notCancellable';
      state: StateName;
      messages: readonly { number: number; why: NotCancellable }[];
    }
  /** Only a tombstone is left: it was finished long ago. */
  | { kind: 'purged'; state: StateName }
  /** These are not there at all. */
  | { kind: 'noSuchMessage'; numbers: number[]; messageCount: number };

export interface Cancel {
  id: string;
  /** Only a transaction of this group; another group's is as good as absent. @default any group */
  producerGroup?: string | undefined;
  /** Numbers of the messages. @default all that still wait */
  numbers?: readonly number[] | undefined;
  /** For the history: who, and why. */
  by: string;
  reason: string;
}

export type CancelResult =
  /** Cancelled now or before; `cancelled` has all messages of which that is true. */
  | { kind: 'cancelled'; state: StateName; cancelled: MessageMask }
  /** None was cancelled. */
  | { kind: 'refused'; refusal: CancelRefusal }
  | { kind: 'unknown' };

export type CancelRuling =
  /** Guarded by `beforeAt`, the first of their times. */
  | { kind: 'cancel'; mask: MessageMask; beforeAt: StoreTime }
  /** All of them are cancelled already. */
  | { kind: 'keep' }
  | { kind: 'refuse'; refusal: CancelRefusal };

/** Undefined when it may be cancelled. */
function whyNot(row: Cancellable, number: number, now: StoreTime): NotCancellable | undefined {
  const message = row.messages[number];
  if (message === undefined) throw new Error(`there is no message ${number}`);
  if (row.undecided) return 'undecided';
  if (row.state === 'rolledBack') return 'rolledBack';
  if (hasMessage(row.unrouted, number)) return 'unrouted';
  if (!hasMessage(row.pending, number)) return 'forwarded';
  if (!isDelayed(message)) return 'notDelayed';
  return dueAtOf(message, row.decidedAt) <= now ? 'due' : undefined;
}

/**
 * All of the named messages or none. Safe to repeat: what is cancelled already is no obstacle.
 *
 * @param numbers of the messages; undefined: all that still wait
 * @param now of the store's clock, read while the row is locked
 */
export function cancelMessages(
  row: Cancellable,
  numbers: readonly number[] | undefined,
  now: StoreTime,
): CancelRuling {
  const all = row.messages.map((_, number) => number);
  const asked = numbers ?? all;
  const absent = asked.filter((number) => number >= all.length);
  if (absent.length > 0) {
    const messageCount = all.length;
    return { kind: 'refuse', refusal: { kind: 'noSuchMessage', numbers: absent, messageCount } };
  }
  const open = asked.filter((number) => !hasMessage(row.cancelled, number));
  const refused = open.flatMap((number) => {
    const why = whyNot(row, number, now);
    return why === undefined ? [] : [{ number, why }];
  });
  const refusedNumbers = new Set(refused.map(({ number }) => number));
  const chosen = open.filter((number) => !refusedNumbers.has(number));
  const isRefused = numbers === undefined ? chosen.length === 0 : refused.length > 0;
  // Whoever named no message and repeats the call finds none that still waits.
  if (isRefused && (numbers !== undefined || row.cancelled === 0)) {
    return {
      kind: 'refuse',
      refusal: { kind: 'notCancellable', state: row.state, messages: refused },
    };
  }
  if (chosen.length === 0) return { kind: 'keep' };
  return {
    kind: 'cancel',
    mask: chosen.reduce((mask, number) => mask + messageBit(number), 0),
    beforeAt: Math.min(
      ...chosen.map((number) => dueAtOf(row.messages[number] as Message, row.decidedAt)),
    ),
  };
}

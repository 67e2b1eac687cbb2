import type { Closed, GroupStanding, StateName } from '@escrowmq/protocol';
import type { KeptReceipt } from './group-standing.js';

/*
 * Transactions whose groups owe a word: forwarded long ago, and somebody in `expects` has neither
 * consumed nor given up. They are kept until the word comes, or until an operator closes them. Closed
 * is not settled: nobody waits any more, and that is all.
 */

/** What the ruling on a close needs to know of a row. */
export interface Closable {
  state: StateName;
  settled: boolean;
  /** By whom and why, when it is closed already. */
  closed?: Closed | undefined;
  /** Compensations that no producer has acknowledged yet. */
  compensationsOwed: number;
}

/** Why a transaction can't be closed. */
export type NotClosable =
  /** It is not finished: there are other words for that. */
  | { kind: 'open'; state: StateName }
  | { kind: 'settled'; state: StateName }
  /** `compensated` is the word for that. */
  | { kind: 'owes'; compensations: number };

export type ClosingRuling =
  | { kind: 'close' }
  /** Closed already: what is on record stays. */
  | { kind: 'keep'; closed: Closed }
  | { kind: 'refuse'; why: NotClosable };

/** An operator says that nobody waits for receipts any more. Safe to repeat, by anybody. */
export function closeUnsettled(row: Closable): ClosingRuling {
  const { state, settled, closed, compensationsOwed } = row;
  if (closed !== undefined) return { kind: 'keep', closed };
  if (settled) return { kind: 'refuse', why: { kind: 'settled', state } };
  if (state !== 'forwarded') return { kind: 'refuse', why: { kind: 'open', state } };
  return compensationsOwed > 0
    ? { kind: 'refuse', why: { kind: 'owes', compensations: compensationsOwed } }
    : { kind: 'close' };
}

export interface Closing {
  id: string;
  operator: string;
  reason: string;
}

export type ClosingResult =
  /** Now, or before: then by whom is on record. `purged`: only that record is left. */
  | { kind: 'closed'; closed: Closed; purged?: true }
  | { kind: 'refused'; why: NotClosable }
  /** Finished and purged, and never closed. */
  | { kind: 'purged' }
  | { kind: 'unknown' };

/** Words that came in time; what comes after the closing is kept and changes nothing. */
export const saidBefore = (
  { at: closedAt }: Closed,
  receipts: readonly KeptReceipt[],
): KeptReceipt[] => receipts.filter(({ at }) => at < closedAt);

/**
 * How groups stand in a closed transaction: those that still owed a word as failed, because nobody
 * waits for them any more; so whoever waits by the groups alone, as SDKs of 0.1 do, ends as well.
 */
export const closedStandings = (
  { by, reason, at }: Closed,
  standings: readonly GroupStanding[],
): GroupStanding[] =>
  standings.map((standing) =>
    standing.state === 'waiting'
      ? { ...standing, state: 'failed', cause: `closed by ${by}: ${reason}`, at }
      : standing,
  );

/** A transaction that waits for groups, when it is noticed that it has waited for long. */
export interface OverdueSettlement {
  id: string;
  producerGroup: string;
  topics: string[];
  /** Groups that have not said what became of some message; never empty. */
  waitingFor: string[];
}

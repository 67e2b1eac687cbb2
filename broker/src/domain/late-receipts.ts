import type { ConsumerReceipt } from '@escrowmq/protocol';

/**
 * A receipt that nobody can act upon any more, or that came when nobody waited:
 *
 * - `closed`: it is recorded, and its transaction stays closed
 * - `purged`: the transaction is gone; `unsettled` where it had not settled
 * - `unknown`: neither a row nor a tombstone
 */
export interface LateReceipt {
  why: 'closed' | 'purged' | 'unsettled' | 'unknown';
  id: string;
  consumerGroup: string;
  kind: ConsumerReceipt['kind'];
}

/**
 * Whether somebody must hear of it. Receipts are repeated, so a group that consumed what is settled
 * and purged says nothing new when it says so again.
 */
export const isToBeTold = ({ why, kind }: LateReceipt): boolean =>
  kind === 'failed' || why === 'closed' || why === 'unsettled';

import type { ConsumerReceipt } from '@escrowmq/protocol';
import type { Closing, ClosingResult, OverdueSettlement } from './closing.js';
import type { ReceiptsSaved, Unsettled } from './group-standing.js';

/** Receipts, and what has not settled. Rejects with `STORE_UNAVAILABLE` when the database can't be reached. */
export interface SettlementStore {
  /**
   * Repeated receipts change nothing. What comes for a transaction that is gone, or closed, is told as
   * late; what nobody waits for is ignored.
   */
  saveReceipts(batch: readonly ConsumerReceipt[]): Promise<ReceiptsSaved>;
  /** An operator's word, recorded, that nobody waits for what the groups still owe; guarded. */
  closeUnsettled(closing: Closing): Promise<ClosingResult>;
  /**
   * Tells up to `limit` forwarded transactions in which a group owes a word since longer than that,
   * each once, by whichever instance comes first. A crash in between tells some of them twice. Looks at
   * a bounded number of rows and goes on from there the next time; resolves with how many it told.
   */
  tellOverdue(
    search: { olderThanMs: number; limit: number },
    tell: (overdue: readonly OverdueSettlement[]) => void,
  ): Promise<number>;
  /** Those of these transactions that have not settled, by id. */
  unsettled(ids: readonly string[]): Promise<Map<string, Unsettled>>;
  /** As long as there is a tombstone, what was purged without having settled is among them. */
  unsettledOn(
    businessKeys: readonly string[],
    producerGroup?: string,
  ): Promise<Map<string, Unsettled[]>>;
}

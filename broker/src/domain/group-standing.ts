import type { BusinessKeyAnswer, ConsumerReceipt, GroupStanding } from '@escrowmq/protocol';
import type { Reversed } from './compensations.js';
import type { Expectation } from './expectations.js';
import type { LateReceipt } from './late-receipts.js';
import {
  countOfMessages,
  type MessageMask,
  type StoreTime,
  withoutMessages,
} from './transaction.js';

/** A receipt as it is kept: one for each message and group. */
export interface KeptReceipt {
  consumerGroup: string;
  message: number;
  kind: ConsumerReceipt['kind'];
  at: StoreTime;
  attempts?: number;
  cause?: string;
}

/** A transaction that has not settled, and which groups that hangs on. */
export type Unsettled = BusinessKeyAnswer['transactions'][number];

export interface ReceiptsSaved {
  /** Transactions that these receipts settled. */
  settled: string[];
  /**
   * Of messages consumed after all: compensations that have been acknowledged, or may have been run
   * by a call without an answer. Told again when such a receipt is repeated.
   */
  reversed: Reversed[];
  /** Those that came too late to change what became of their transaction. */
  late: LateReceipt[];
}

/**
 * What became of a transaction in each group that it expects: a group has consumed it when it has
 * consumed every message that names it, and has failed when it gave up on one.
 *
 * @param cancelled messages that nobody waits for any more
 * @param receipts by number of their messages
 */
export function standingsOf(
  expectations: readonly Expectation[],
  cancelled: MessageMask,
  receipts: readonly KeptReceipt[],
): GroupStanding[] {
  return expectations.map(({ consumerGroup, messages }) => {
    const wanted = countOfMessages(withoutMessages(messages, cancelled));
    const its = receipts.filter((receipt) => receipt.consumerGroup === consumerGroup);
    const attempts = Math.max(0, ...its.map((receipt) => receipt.attempts ?? 0));
    const failed = its.find(({ kind }) => kind === 'failed');
    if (failed !== undefined) {
      const { at, cause } = failed;
      const why = cause === undefined ? {} : { cause };
      return { consumerGroup, state: 'failed', attempts, ...why, at };
    }
    if (its.length < wanted) return { consumerGroup, state: 'waiting', attempts };
    // Of messages that were all cancelled there is no receipt, and none to come.
    const last = its.length === 0 ? {} : { at: Math.max(...its.map(({ at }) => at)) };
    return { consumerGroup, state: 'consumed', attempts, ...last };
  });
}

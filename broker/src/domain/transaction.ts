import type { Decision, Message } from '@escrowmq/protocol';
import type { Place } from './ordering.js';

/** UTC milliseconds of the store's clock, the only clock that decides what is due. */
export type StoreTime = number;

/** Bit n stands for message n of a transaction; 32 bits, kept unsigned. */
export type MessageMask = number;

/** The mask of messages 0 to `count - 1`. */
export const allMessages = (count: number): MessageMask => (count >= 32 ? 2 ** 32 : 2 ** count) - 1;
export const messageBit = (number: number): MessageMask => 2 ** number;
export const hasMessage = (mask: MessageMask, number: number): boolean =>
  Math.floor(mask / 2 ** number) % 2 === 1;
export const countOfMessages = (mask: MessageMask): number => {
  let count = 0;
  for (let rest = mask; rest > 0; rest = Math.floor(rest / 2)) count += rest % 2;
  return count;
};
/** `mask` without the bits of `cleared`, unsigned. */
export const withoutMessages = (mask: MessageMask, cleared: MessageMask): MessageMask =>
  (mask & ~cleared) >>> 0;

/**
 * Where a transaction stands, which is what the broker still owes:
 *
 * - `prepared`: a check at `dueAt`
 * - `committed`: forwarding each pending message, next at `dueAt`
 * - `forwarded`, `rolledBack`: nothing; retention will take it
 * - `parked`: nothing by itself; an operator's word. `unresolved` has no decision and also takes
 *   the producer's late verdict; `undeliverable` is committed and only waits to be sent again
 */
export type State =
  | { state: 'prepared'; checks: number; unanswered: number; dueAt: StoreTime }
  | { state: 'committed'; pending: MessageMask; attempts: number; dueAt: StoreTime }
  | { state: 'forwarded'; forwardedAt: StoreTime }
  | { state: 'rolledBack'; decidedAt: StoreTime }
  | { state: 'parked'; reason: 'unresolved'; parkedAt: StoreTime }
  | { state: 'parked'; reason: 'undeliverable'; pending: MessageMask; parkedAt: StoreTime };

/** Who decided, and why; on record for good. */
export interface DecidedBy {
  by: string;
  reason?: string;
}
export const byProducer: DecidedBy = { by: 'producer' };

/** What the broker keeps of a trace, as it was at prepare. */
export interface TraceContext {
  traceparent?: string;
  tracestate?: string;
}

/** What a caller asked to be kept, parsed: everything that does not change afterwards. */
export interface Content {
  id: string;
  producerGroup: string;
  businessKeys: string[];
  expects: string[];
  checkContext: string | undefined;
  messages: Message[];
  trace: TraceContext;
}

/** A transaction on its way into the store. */
export interface NewTransaction extends Content {
  contentHash: Buffer;
  /**
   * By the store's clock as this instance last read it. Told to checks and consumers, the same on
   * every repeat; what is due is counted by the store itself.
   */
  preparedAt: StoreTime;
  /** The messages as they are stored, made once. */
  messagesJson: string;
  /** Size of `messagesJson`, for batches and memory. */
  bytes: number;
  /** The id is old enough that its transaction may be finished and purged already. */
  mayBePurged: boolean;
  /** `prepare` waits for a verdict until the first check; `send` is committed at once. */
  kind:
    | { op: 'prepare'; checkAfterMs: number }
    /** `waits`: nothing of it may go before `leaseMs` is over, and nobody forwards it until then. */
    | { op: 'send'; leaseMs: number; waits?: boolean };
}

/** A transaction as the forwarder needs it. */
export interface Committed extends Content {
  preparedAt: StoreTime;
  /** When it was committed; delays are counted from here. */
  decidedAt: StoreTime;
  pending: MessageMask;
  attempts: number;
  bytes: number;
  /** Of what is pending and ordered; absent where nothing is. */
  places?: readonly Place[];
}

export type { Decision, Message };

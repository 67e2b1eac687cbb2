/*
 * The words of answers, in lists that grow. What reads an answer takes a word that is not here as
 * it is (`openWord`); who adds one says in `older-callers.ts` what callers of 0.1 get in its place.
 */

/** States of a transaction: what the broker still owes it. */
export const STATES = ['prepared', 'committed', 'forwarded', 'rolledBack', 'parked'] as const;

/** Why a transaction is parked: nobody decided, or it can not be forwarded. */
export const PARKED_REASONS = ['unresolved', 'undeliverable'] as const;

/** Of one message. */
export const MESSAGE_STATES = [
  'half',
  'pending',
  'forwarded',
  'unrouted',
  'cancelled',
  'rolledBack',
] as const;
/** Where a message is on its way. */
export type MessageState = (typeof MESSAGE_STATES)[number];

/** Of a transaction in one expected group. */
export const GROUP_STATES = ['waiting', 'consumed', 'failed'] as const;
/** What became of a transaction in one expected group. */
export type GroupState = (typeof GROUP_STATES)[number];

/** What a consumer group says of a message: consumed, or failed for good. */
export const RECEIPT_KINDS = ['consumed', 'failed'] as const;
/** What a consumer group says of a message. */
export type ReceiptKind = (typeof RECEIPT_KINDS)[number];

/** States of a compensation: see `Compensation`. */
export const COMPENSATION_STATES = ['owed', 'done', 'withdrawn'] as const;
/** State of a compensation. */
export type CompensationState = (typeof COMPENSATION_STATES)[number];

/** What the history of a transaction tells of. */
export const HISTORY_EVENTS = [
  'check',
  'resolve',
  'parked',
  'unrouted',
  'forwardFailed',
  'conflict',
  'cancelled',
] as const;
/** What the history of a transaction tells of. */
export type HistoryEventName = (typeof HISTORY_EVENTS)[number];

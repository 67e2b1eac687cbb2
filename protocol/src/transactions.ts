import { z } from 'zod';
import { LIMITS } from './limits.js';
import { type MessageData, MessageDataList } from './message-data.js';
import { named, type Schema } from './named.js';
import { printable } from './names.js';
import { type OpenWord, openWord } from './open-words.js';
import { type PARKED_REASONS, STATES } from './words.js';

/** `POST /v1/transactions/{id}/commit`; without a body where prepare left nothing open. */
export interface CommitRequest {
  /** The data of every message that prepare left open by `dataAtCommit`. @default none is open */
  messageData?: MessageData[] | undefined;
}
/** A commit as a caller writes it. */
export type CommitInput = CommitRequest;

/** `POST /v1/transactions/{id}/commit`; without a body where prepare left nothing open. */
export const CommitRequest = named<CommitRequest>()(
  z.strictObject({ messageData: MessageDataList.optional() }).meta({ id: 'CommitRequest' }),
);

/** Numbers of messages in their transaction, from 0. */
const MessageNumbers = z
  .array(
    z
      .int()
      .min(0)
      .max(LIMITS.messagesPerTransactionMax - 1),
  )
  .min(1)
  .refine((numbers) => new Set(numbers).size === numbers.length, {
    error: 'must not repeat a number',
  });

/** `POST /v1/transactions/{id}/cancel`: messages that wait for their time are not sent after all. */
export interface CancelRequest {
  /** Numbers of the messages, from 0; all or none of them. @default all that still wait */
  messages?: number[] | undefined;
  /** On record in the history, 1 to 500 characters. */
  reason: string;
  /**
   * Name of the person, 1 to 100 characters; needed with an operator's key, and only there.
   * @default none: the producer itself
   */
  operator?: string | undefined;
}

/** `POST /v1/transactions/{id}/cancel`: messages that wait for their time are not sent after all. */
export const CancelRequest = named<CancelRequest>()(
  z
    .strictObject({
      messages: MessageNumbers.optional().describe(
        'Numbers of the messages, from 0; all or none of them. Default: all that still wait',
      ),
      reason: printable(LIMITS.reasonCharsMax).describe('On record in the history'),
      operator: printable(LIMITS.operatorCharsMax)
        .optional()
        .describe("Name of the person; needed with an operator's key, and only there"),
    })
    .meta({ id: 'CancelRequest' }),
);

/** What an operator may do with a transaction. */
export const RESOLVE_ACTIONS = [
  'commit',
  'rollback',
  'recheck',
  'resend',
  'close',
  'compensated',
] as const;
/** What an operator may do with a transaction. */
export type ResolveAction = (typeof RESOLVE_ACTIONS)[number];

/** `POST /v1/transactions/{id}/resolve`: an operator's word, recorded. */
export interface ResolveRequest {
  /**
   * `commit` and `rollback` decide, `recheck` asks the producer anew, `resend` tries an undeliverable one
   * again, `close` ends the waiting for groups that said nothing, `compensated` says that it is done.
   */
  action: ResolveAction;
  /** Name of the person, 1 to 100 characters. */
  operator: string;
  /** On record in the history, 1 to 500 characters. */
  reason: string;
}

/** `POST /v1/transactions/{id}/resolve`: an operator's word, recorded. */
export const ResolveRequest = named<ResolveRequest>()(
  z
    .strictObject({
      action: z.enum(RESOLVE_ACTIONS),
      operator: printable(LIMITS.operatorCharsMax),
      reason: printable(LIMITS.reasonCharsMax),
    })
    .meta({ id: 'ResolveRequest' }),
);

/** What the broker still owes a transaction; see docs/concepts.md. */
export type StateName = (typeof STATES)[number];
/** A state that is asked for. */
export const StateName = named<StateName>()(z.enum(STATES).meta({ id: 'State' }));

/** A state in an answer; a newer broker may say another word. */
export type AnsweredState = OpenWord<StateName>;
/** A state in an answer. */
export const AnsweredState = openWord(STATES).meta({ id: 'AnsweredState' });

/** The two decisions that there are. */
export const DECISIONS = ['commit', 'rollback'] as const;
/** What became of a transaction; once made, it never changes. */
export type Decision = (typeof DECISIONS)[number];
/** What became of a transaction. */
export const Decision = named<Decision>()(z.enum(DECISIONS));

/** Why a transaction is parked. */
export type ParkedReason = (typeof PARKED_REASONS)[number];

/** UTC milliseconds of the store's clock. */
export const StoreTime: Schema<number> = z.int().describe("UTC milliseconds of the store's clock");

/** A decision on record: what, when, by whom and why. */
export interface DecisionRecord {
  /** What was decided; it never changes. */
  decision: Decision;
  /** When, in UTC milliseconds of the store's clock. */
  at: number;
  /** By whom: `producer`, `check <endpoint>`, or `operator <name>`. */
  by: string;
  /** Why, in an operator's words; absent where no operator decided. */
  reason?: string | undefined;
}

/** A decision on record: what, when, by whom and why. */
export const DecisionRecord = named<DecisionRecord>()(
  z
    .object({
      decision: Decision,
      at: StoreTime,
      by: z.string().describe('producer, check <endpoint>, or operator <name>'),
      reason: z.string().optional(),
    })
    .meta({ id: 'DecisionRecord' }),
);

/** An operator's word that nobody waits any more for groups that said nothing. */
export interface Closed {
  /** When, in UTC milliseconds of the store's clock. */
  at: number;
  /** By whom: `operator <name>`. */
  by: string;
  /** Why, in the operator's words. */
  reason: string;
}

/** An operator's word that nobody waits any more for groups that said nothing. */
export const Closed = named<Closed>()(
  z
    .object({
      at: StoreTime,
      by: z.string().describe('operator <name>'),
      reason: z.string(),
    })
    .meta({ id: 'Closed' }),
);

/** The answer to prepare, commit, rollback, send and resolve. */
export interface TransactionAnswer {
  /** Of the transaction, a UUID of version 7. */
  id: string;
  /** What the broker still owes it. */
  state: AnsweredState;
  /** The decision on record; absent before there is one. */
  decision?: DecisionRecord | undefined;
  /** True when only a tombstone is left: finished, and its retention is over. */
  purged?: boolean | undefined;
  /** After `close`: by whom, also when that was before. */
  closed?: Closed | undefined;
}

/** The answer to prepare, commit, rollback, send and resolve. */
export const TransactionAnswer = named<TransactionAnswer>()(
  z
    .object({
      id: z.string(),
      state: AnsweredState,
      decision: DecisionRecord.optional(),
      purged: z
        .boolean()
        .optional()
        .describe('True when only a tombstone is left: finished, and its retention is over'),
      closed: Closed.optional().describe('After "close": by whom, also when that was before'),
    })
    .meta({ id: 'TransactionAnswer' }),
);

/** The answer to a cancel. A repeat has the same. */
export interface CancelAnswer {
  /** Of the transaction. */
  id: string;
  /** What the broker still owes it. */
  state: AnsweredState;
  /** Numbers of all cancelled messages of the transaction, from 0, cancelled now or before. */
  cancelled: number[];
}

/** The answer to a cancel. A repeat has the same. */
export const CancelAnswer = named<CancelAnswer>()(
  z
    .object({
      id: z.string(),
      state: AnsweredState,
      cancelled: z
        .array(z.int())
        .describe('Numbers of all cancelled messages of the transaction, now or before'),
    })
    .meta({ id: 'CancelAnswer' }),
);

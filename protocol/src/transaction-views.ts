import { z } from 'zod';
import { Compensation } from './compensations.js';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { type OpenWord, openWord } from './open-words.js';
import {
  AnsweredState,
  Closed,
  DecisionRecord,
  type ParkedReason,
  StoreTime,
} from './transactions.js';
import {
  GROUP_STATES,
  type GroupState,
  HISTORY_EVENTS,
  type HistoryEventName,
  MESSAGE_STATES,
  type MessageState,
  PARKED_REASONS,
  RECEIPT_KINDS,
  type ReceiptKind,
} from './words.js';

/** One thing that happened to a transaction. */
export interface HistoryEvent {
  /** When, in UTC milliseconds of the store's clock. */
  at: number;
  /** What happened; a newer broker may say another word. */
  event: OpenWord<HistoryEventName>;
  /** What there is to say about it; its fields depend on the event. */
  detail: Record<string, unknown>;
}

/** One thing that happened to a transaction. */
export const HistoryEvent = named<HistoryEvent>()(
  z
    .object({
      at: StoreTime,
      event: openWord(HISTORY_EVENTS),
      detail: z.record(z.string(), z.unknown()),
    })
    .meta({ id: 'HistoryEvent' }),
);

/** A consumer group's word on one message. */
export interface Receipt {
  /** Whose word it is. */
  consumerGroup: string;
  /** Number of the message in its transaction, from 0. */
  message: number;
  /** Consumed, or failed for good. */
  kind: OpenWord<ReceiptKind>;
  /** When the broker took it down, in UTC milliseconds of the store's clock. */
  at: number;
  /** Number of attempts that failed; absent where the receipt did not say. */
  attempts?: number | undefined;
  /** Why the last attempt failed; absent for what was consumed. */
  cause?: string | undefined;
}

/** A consumer group's word on one message. */
export const Receipt = named<Receipt>()(
  z
    .object({
      consumerGroup: z.string(),
      message: z.int().describe('Number of the message in its transaction, from 0'),
      kind: openWord(RECEIPT_KINDS),
      at: StoreTime,
      attempts: z.int().optional().describe('Attempts that failed'),
      cause: z.string().optional(),
    })
    .meta({ id: 'Receipt' }),
);

/** What became in one expected group of all messages that name it. */
export interface GroupStanding {
  /** The group. */
  consumerGroup: string;
  /**
   * `waiting`; `consumed`: every message that names it was; `failed`: it has given up on one for good.
   */
  state: OpenWord<GroupState>;
  /** Number of attempts that failed, of the message that had the most. */
  attempts: number;
  /** Why it gave up, of the first message that was given up. */
  cause?: string | undefined;
  /** When the last was consumed, or the first given up, in UTC milliseconds of the store's clock. */
  at?: number | undefined;
}

/** What became in one expected group of all messages that name it. */
export const GroupStanding = named<GroupStanding>()(
  z
    .object({
      consumerGroup: z.string(),
      state: openWord(GROUP_STATES).describe(
        'consumed: every message that names it was; failed: the group has given up on one for good',
      ),
      attempts: z.int().describe('Attempts that failed, of the message that had the most'),
      cause: z.string().optional().describe('Of the first message that was given up'),
      at: StoreTime.optional().describe('When the last was consumed, or the first given up'),
    })
    .meta({ id: 'GroupStanding' }),
);

/** What a message must let go first, because both have one topic and ordering key. */
export interface WaitsFor {
  /** The transaction that it waits for. */
  transactionId: string;
  /** The message that it waits for. */
  messageId: string;
  /** Place of that message among those of its topic and ordering key, from 1. */
  sequence: number;
  /** Of its transaction; a parked one holds up the key until it is resolved. */
  state: AnsweredState;
}

/** What a message must let go first, because both have one topic and ordering key. */
export const WaitsFor = named<WaitsFor>()(
  z
    .object({
      transactionId: z.string(),
      messageId: z.string(),
      sequence: z.int(),
      state: AnsweredState.describe(
        'Of its transaction; a parked one holds up the key until it is resolved',
      ),
    })
    .meta({ id: 'WaitsFor' }),
);

/** A transaction in a list. */
export interface TransactionSummary {
  /** A UUID of version 7. */
  id: string;
  /** The group that answers for it. */
  producerGroup: string;
  /** What the broker still owes it. */
  state: AnsweredState;
  /** Why it is parked; absent where it is not. */
  parkedReason?: OpenWord<ParkedReason> | undefined;
  /** When it was prepared, in UTC milliseconds of the store's clock. */
  preparedAt: number;
  /** When the broker acts next, in UTC milliseconds of the store's clock; absent where it owes nothing. */
  dueAt?: number | undefined;
  /** Rolled back, or consumed by all that were expected; where none were, forwarded. */
  settled: boolean;
  /** An operator closed it: it has not settled, and nobody waits for it any more. */
  closed?: Closed | undefined;
  /** The decision on record; absent before there is one. */
  decision?: DecisionRecord | undefined;
}

const summarySchema = z
  .object({
    id: z.string(),
    producerGroup: z.string(),
    state: AnsweredState,
    parkedReason: openWord(PARKED_REASONS).optional(),
    preparedAt: StoreTime,
    dueAt: StoreTime.optional().describe('When the broker acts next'),
    settled: z.boolean(),
    closed: Closed.optional().describe(
      'An operator closed it: it has not settled, and nobody waits for it any more',
    ),
    decision: DecisionRecord.optional(),
  })
  .meta({ id: 'TransactionSummary' });

/** A transaction in a list. */
export const TransactionSummary = named<TransactionSummary>()(summarySchema);

/** How far the checks of a transaction are. */
export interface ChecksSoFar {
  /** Number of answers `unknown` so far; only these spend an attempt. */
  unknown: number;
  /** Number of checks in a row that got no answer. */
  unanswered: number;
}

/** How far the forwarding of a transaction is. */
export interface ForwardingSoFar {
  /** Number of attempts that failed. */
  failedAttempts: number;
  /** Why the last one failed; absent where none did. */
  lastFailure?: string | undefined;
}

/** The place of a message in an order. */
export interface OrderingView {
  /** The ordering key. */
  key: string;
  /** Place among those of its topic and key, from 1: given by the commit, shown until it has left. */
  sequence?: number | undefined;
  /** What it must let go first; absent where nothing is in its way. */
  waitsFor?: WaitsFor | undefined;
}

/** One message in the view of its transaction. Its body is not shown: it may be secret and large. */
export interface MessageView {
  /** `<transactionId>-<n>`, the AMQP message id. */
  messageId: string;
  /** The topic that it goes to. */
  topic: string;
  /** What RabbitMQ routes it by within the topic. */
  routingKey: string;
  /** The media type of its body; empty while the data is still to come. */
  contentType: string;
  /** Of its body, in bytes. */
  bytes: number;
  /** True while the data is still to come. */
  dataAtCommit?: boolean | undefined;
  /** Its place in an order; absent without an ordering key. */
  ordering?: OrderingView | undefined;
  /** Where it is on its way. */
  state: OpenWord<MessageState>;
  /**
   * Of a delayed message that is pending: it does not leave before this time, in UTC milliseconds of the
   * store's clock.
   */
  dueAt?: number | undefined;
  /** Groups that must consume it, where the message itself names them. */
  expects?: string[] | undefined;
}

/** All that is known of a transaction but the bodies of its messages. */
export interface TransactionView extends TransactionSummary {
  /** The caller's own ids that it can be found by. */
  businessKeys: string[];
  /** Of the transaction: groups expected to consume every message. */
  expects: string[];
  /** Comes back in every check; absent where the prepare gave none. */
  checkContext?: string | undefined;
  /** How far its checks are. */
  checks: ChecksSoFar;
  /** How far its forwarding is. */
  forwarding: ForwardingSoFar;
  /** One for each of its messages, in their order. */
  messages: MessageView[];
  /** One for each group that some message expects. */
  groups: GroupStanding[];
  /** What consumer groups said of its messages. */
  receipts: Receipt[];
  /** Calls for compensation that are owed, done or withdrawn. */
  compensations: Compensation[];
  /** What happened to it, in that order. */
  history: HistoryEvent[];
}

/** `GET /v1/transactions/{id}`. Bodies are not shown: they may be secret and large. */
export const TransactionView = named<TransactionView>()(
  summarySchema
    .extend({
      businessKeys: z.array(z.string()),
      expects: z
        .array(z.string())
        .describe('Of the transaction: expected to consume every message'),
      checkContext: z.string().optional(),
      checks: z.object({
        unknown: z.int().describe('Answers "unknown" so far; only these spend an attempt'),
        unanswered: z.int().describe('Checks in a row that got no answer'),
      }),
      forwarding: z.object({
        failedAttempts: z.int(),
        lastFailure: z.string().optional(),
      }),
      messages: z.array(
        z.object({
          messageId: z.string(),
          topic: z.string(),
          routingKey: z.string(),
          contentType: z.string().describe('Empty while the data is still to come'),
          bytes: z.int(),
          dataAtCommit: z.boolean().optional().describe('True while the data is still to come'),
          ordering: z
            .object({
              key: z.string(),
              sequence: z
                .int()
                .optional()
                .describe('Given by the commit, and shown until the message has left'),
              waitsFor: WaitsFor.optional(),
            })
            .optional(),
          state: openWord(MESSAGE_STATES),
          dueAt: StoreTime.optional().describe(
            'Of a delayed message that is pending: it does not leave before this time',
          ),
          expects: z
            .array(z.string())
            .optional()
            .describe('Groups that must consume it, where the message itself names them'),
        }),
      ),
      groups: z.array(GroupStanding).describe('One for each group that some message expects'),
      receipts: z.array(Receipt),
      compensations: z.array(Compensation),
      history: z.array(HistoryEvent),
    })
    .meta({ id: 'TransactionView' }),
);

/** Query of `GET /v1/transactions/{id}`. */
export interface ViewQuery {
  /** Milliseconds to wait for what may still settle by itself. */
  waitMs: number;
}

/** The same before it is parsed: everything in a query is text. */
export interface ViewQueryInput {
  /**
   * Answers when the transaction can not settle by itself any more, or after this many milliseconds, at
   * most 30000. @default 0: at once
   */
  waitMs?: unknown;
}

/** Query of `GET /v1/transactions/{id}`. */
export const ViewQuery = named<ViewQuery, ViewQueryInput>()(
  z.strictObject({
    waitMs: z.coerce
      .number()
      .int()
      .min(0)
      .max(LIMITS.waitMsMax)
      .default(0)
      .describe(
        'Answer when the transaction can not settle by itself any more, or after this long',
      ),
  }),
);

/**
 * Whether a transaction may still settle by itself, so that waiting for it makes sense: it has not
 * settled, is neither parked nor closed, and somebody other than groups that gave up is still to come.
 */
export function mayStillSettle({ settled, state, closed, groups }: TransactionView): boolean {
  if (settled || state === 'parked' || closed !== undefined) return false;
  const failed = groups.some((group) => group.state === 'failed');
  // What a newer broker says of a group is no end: only these two words are known to be one.
  return !failed || groups.some((group) => group.state !== 'failed' && group.state !== 'consumed');
}

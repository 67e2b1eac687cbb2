import { z } from 'zod';
import { Compensation } from './compensations.js';
import { LIMITS } from './limits.js';
import { ExpectedGroups, type Message, MessageDataList, Messages } from './messages.js';
import { BusinessKey, ProducerGroupName, printable, TransactionId, textOfBytes } from './names.js';
import { openWord } from './open-words.js';
import {
  GROUP_STATES,
  HISTORY_EVENTS,
  MESSAGE_STATES,
  PARKED_REASONS,
  RECEIPT_KINDS,
  STATES,
} from './words.js';

const unique = (values: string[]) => new Set(values).size === values.length;

const sendFields = {
  id: TransactionId.optional().describe('Chosen by the caller; the broker makes one when absent'),
  producerGroup: ProducerGroupName,
  businessKeys: z
    .array(BusinessKey)
    .max(LIMITS.businessKeysPerTransactionMax)
    .refine(unique, { error: 'must not repeat a key' })
    .default([]),
  expects: ExpectedGroups.default([]).describe(
    'Consumer groups that must consume every message before the transaction is settled: the short form for "expects" on all of its messages',
  ),
  messages: Messages,
};

/** What names the groups that are waited for. */
interface Expecting {
  /** Of the transaction: the short form. */
  expects: readonly string[];
  messages: readonly Message[];
}

/** The groups that must consume this message before its transaction is settled. */
export const expectedGroups = (
  { expects }: Pick<Expecting, 'expects'>,
  message: Pick<Message, 'expects'>,
): readonly string[] => (expects.length > 0 ? expects : (message.expects ?? []));

/**
 * Whoever reads both would have to know whether a message's groups come on top of those of the
 * transaction or instead of them, so there is one of the two.
 */
function expectsInOnePlace({ expects, messages }: Expecting, context: z.RefinementCtx): void {
  if (expects.length === 0) {
    const groups = new Set(messages.flatMap((message) => message.expects ?? []));
    if (groups.size <= LIMITS.expectedGroupsMax) return;
    context.addIssue({
      code: 'custom',
      path: ['messages'],
      message: `name ${groups.size} different groups in their "expects"; a transaction expects at most ${LIMITS.expectedGroupsMax} (expectedGroupsMax)`,
    });
    return;
  }
  messages.forEach((message, number) => {
    if (message.expects === undefined) return;
    context.addIssue({
      code: 'custom',
      path: ['messages', number, 'expects'],
      message:
        'stands beside "expects" of the transaction, which is the short form for all of its messages; give one of the two',
    });
  });
}

/** What is dropped is never consumed, so nobody can wait for it. */
function expectsNothingDropped(request: Expecting, context: z.RefinementCtx): void {
  request.messages.forEach((message, number) => {
    if (message.ifUnrouted !== 'drop' || expectedGroups(request, message).length === 0) return;
    context.addIssue({
      code: 'custom',
      path: ['messages', number, 'ifUnrouted'],
      message: 'must be "retry" where "expects" names groups: what is dropped is never consumed',
    });
  });
}

/** Only groups whose receipts are waited for can be known to have given up. */
function compensatesForSomebody(request: Expecting, context: z.RefinementCtx): void {
  request.messages.forEach((message, number) => {
    if (message.compensate === undefined || expectedGroups(request, message).length > 0) return;
    context.addIssue({
      code: 'custom',
      path: ['messages', number, 'compensate'],
      message:
        'needs "expects", of the message or of the transaction, to name the groups whose giving up is to be compensated',
    });
  });
}

/** There is no commit that could supply it. */
function leavesNothingOpen(
  { messages }: { messages: z.output<typeof Messages> },
  context: z.RefinementCtx,
): void {
  messages.forEach(({ dataAtCommit }, number) => {
    if (dataAtCommit === undefined) return;
    context.addIssue({
      code: 'custom',
      path: ['messages', number, 'dataAtCommit'],
      message: 'is for a prepare: a send is committed at once, with its data',
    });
  });
}

/** `POST /v1/transactions`. */
export const PrepareRequest = z
  .strictObject({
    ...sendFields,
    checkAfterMs: z
      .int()
      .min(0)
      .max(LIMITS.checkAfterMsMax)
      .optional()
      .describe("First check after this long without a verdict; default: the group's check policy"),
    checkContext: textOfBytes(LIMITS.checkContextBytesMax)
      .optional()
      .describe('Opaque; comes back in every check'),
  })
  .superRefine(expectsInOnePlace)
  .superRefine(expectsNothingDropped)
  .superRefine(compensatesForSomebody)
  .meta({ id: 'PrepareRequest' });
export type PrepareInput = z.input<typeof PrepareRequest>;
export type PrepareRequest = z.output<typeof PrepareRequest>;

/** `POST /v1/messages`: prepare and commit in one step. */
export const SendRequest = z
  .strictObject(sendFields)
  .superRefine(expectsInOnePlace)
  .superRefine(expectsNothingDropped)
  .superRefine(compensatesForSomebody)
  .superRefine(leavesNothingOpen)
  .meta({ id: 'SendRequest' });
export type SendInput = z.input<typeof SendRequest>;
export type SendRequest = z.output<typeof SendRequest>;

/** `POST /v1/transactions/{id}/commit`; without a body where prepare left nothing open. */
export const CommitRequest = z
  .strictObject({ messageData: MessageDataList.optional() })
  .meta({ id: 'CommitRequest' });
export type CommitInput = z.input<typeof CommitRequest>;
export type CommitRequest = z.output<typeof CommitRequest>;

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
export const CancelRequest = z
  .strictObject({
    messages: MessageNumbers.optional().describe(
      'Numbers of the messages, from 0; all or none of them. Default: all that still wait',
    ),
    reason: printable(LIMITS.reasonCharsMax).describe('On record in the history'),
    operator: printable(LIMITS.operatorCharsMax)
      .optional()
      .describe("Name of the person; needed with an operator's key, and only there"),
  })
  .meta({ id: 'CancelRequest' });
export type CancelRequest = z.output<typeof CancelRequest>;

export const StateName = z.enum(STATES).meta({ id: 'State' });
export type StateName = z.infer<typeof StateName>;
/** A state in an answer. */
export const AnsweredState = openWord(STATES).meta({ id: 'AnsweredState' });

export const Decision = z.enum(['commit', 'rollback']);
export type Decision = z.infer<typeof Decision>;

export const ParkedReason = z.enum(PARKED_REASONS);

/** UTC milliseconds of the store's clock. */
const StoreTime = z.int().describe("UTC milliseconds of the store's clock");

/** A decision on record: what, when, by whom and why. */
export const DecisionRecord = z
  .object({
    decision: Decision,
    at: StoreTime,
    by: z.string().describe('producer, check <endpoint>, or operator <name>'),
    reason: z.string().optional(),
  })
  .meta({ id: 'DecisionRecord' });
export type DecisionRecord = z.infer<typeof DecisionRecord>;

/** An operator's word that nobody waits any more for groups that said nothing. */
export const Closed = z
  .object({
    at: StoreTime,
    by: z.string().describe('operator <name>'),
    reason: z.string(),
  })
  .meta({ id: 'Closed' });
export type Closed = z.infer<typeof Closed>;

/** The answer to prepare, commit, rollback, send and resolve. */
export const TransactionAnswer = z
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
  .meta({ id: 'TransactionAnswer' });
export type TransactionAnswer = z.infer<typeof TransactionAnswer>;

/** The answer to a cancel. A repeat has the same. */
export const CancelAnswer = z
  .object({
    id: z.string(),
    state: AnsweredState,
    cancelled: z
      .array(z.int())
      .describe('Numbers of all cancelled messages of the transaction, now or before'),
  })
  .meta({ id: 'CancelAnswer' });
export type CancelAnswer = z.infer<typeof CancelAnswer>;

export const HistoryEvent = z
  .object({
    at: StoreTime,
    event: openWord(HISTORY_EVENTS),
    detail: z.record(z.string(), z.unknown()),
  })
  .meta({ id: 'HistoryEvent' });
export type HistoryEvent = z.infer<typeof HistoryEvent>;

export const Receipt = z
  .object({
    consumerGroup: z.string(),
    message: z.int().describe('Number of the message in its transaction, from 0'),
    kind: openWord(RECEIPT_KINDS),
    at: StoreTime,
    attempts: z.int().optional().describe('Attempts that failed'),
    cause: z.string().optional(),
  })
  .meta({ id: 'Receipt' });

/** What became in one expected group of all messages that name it. */
export const GroupStanding = z
  .object({
    consumerGroup: z.string(),
    state: openWord(GROUP_STATES).describe(
      'consumed: every message that names it was; failed: the group has given up on one for good',
    ),
    attempts: z.int().describe('Attempts that failed, of the message that had the most'),
    cause: z.string().optional().describe('Of the first message that was given up'),
    at: StoreTime.optional().describe('When the last was consumed, or the first given up'),
  })
  .meta({ id: 'GroupStanding' });
export type GroupStanding = z.infer<typeof GroupStanding>;

/** What a message must let go first, because both have one topic and ordering key. */
export const WaitsFor = z
  .object({
    transactionId: z.string(),
    messageId: z.string(),
    sequence: z.int(),
    state: AnsweredState.describe(
      'Of its transaction; a parked one holds up the key until it is resolved',
    ),
  })
  .meta({ id: 'WaitsFor' });
export type WaitsFor = z.infer<typeof WaitsFor>;

/** A transaction in a list. */
export const TransactionSummary = z
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
export type TransactionSummary = z.infer<typeof TransactionSummary>;

/** `GET /v1/transactions/{id}`. Bodies are not shown: they may be secret and large. */
export const TransactionView = TransactionSummary.extend({
  businessKeys: z.array(z.string()),
  expects: z.array(z.string()).describe('Of the transaction: expected to consume every message'),
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
}).meta({ id: 'TransactionView' });
export type TransactionView = z.infer<typeof TransactionView>;

/** Query of `GET /v1/transactions/{id}`. */
export const ViewQuery = z.strictObject({
  waitMs: z.coerce
    .number()
    .int()
    .min(0)
    .max(LIMITS.waitMsMax)
    .default(0)
    .describe('Answer when the transaction can not settle by itself any more, or after this long'),
});

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

/** `GET /v1/transactions`. */
export const SearchQuery = z.strictObject({
  state: StateName.optional(),
  producerGroup: ProducerGroupName.optional(),
  topic: printable(LIMITS.topicCharsMax).optional(),
  businessKey: BusinessKey.optional(),
  limit: z.coerce.number().int().min(1).max(LIMITS.searchPageMax).default(50),
  cursor: TransactionId.optional().describe('The cursor of the previous page'),
});
export type SearchQuery = z.output<typeof SearchQuery>;

/** Newest first; `cursor` is there when more may follow. */
export const SearchAnswer = z
  .object({ transactions: z.array(TransactionSummary), cursor: z.string().optional() })
  .meta({ id: 'SearchAnswer' });
export type SearchAnswer = z.infer<typeof SearchAnswer>;

/** `POST /v1/transactions/{id}/resolve`: an operator's word, recorded. */
export const ResolveRequest = z
  .strictObject({
    action: z.enum(['commit', 'rollback', 'recheck', 'resend', 'close', 'compensated']),
    operator: printable(LIMITS.operatorCharsMax),
    reason: printable(LIMITS.reasonCharsMax),
  })
  .meta({ id: 'ResolveRequest' });
export type ResolveRequest = z.infer<typeof ResolveRequest>;

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { ExpectedGroups, type Message, type MessageInput, Messages } from './messages.js';
import { named } from './named.js';
import { BusinessKey, ProducerGroupName, TransactionId, textOfBytes } from './names.js';

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
  /** Each may name groups of its own, where the transaction names none. */
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
  { messages }: { messages: readonly Message[] },
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

/** Of a prepare and of a send, as a caller writes it. */
export interface SendInput {
  /**
   * A UUID of version 7, so that a lost call may be repeated under the same id.
   * @default the broker makes one
   */
  id?: string | undefined;
  /** The group of services that answers for it: 1 to 64 letters, digits, dots, dashes, underscores. */
  producerGroup: string;
  /**
   * The caller's own ids, such as `phone:13800000000`, that it can be found by: at most 16 different
   * ones of at most 128 characters. @default []
   */
  businessKeys?: string[] | undefined;
  /**
   * Consumer groups that must consume every message before the transaction is settled, at most 16: the
   * short form for `expects` on all of its messages, and not beside it. @default []
   */
  expects?: string[] | undefined;
  /** What is sent once it is committed, 1 to 32. */
  messages: MessageInput[];
}

/** A send as parsed: defaults filled in. */
export interface SendRequest {
  /** A UUID of version 7 in lower case; absent: the broker makes one. */
  id?: string | undefined;
  /** The group of services that answers for it. */
  producerGroup: string;
  /** The caller's own ids that it can be found by. */
  businessKeys: string[];
  /** Consumer groups that must consume every message before the transaction is settled. */
  expects: string[];
  /** What is sent once it is committed. */
  messages: Message[];
}

/** What a prepare has beside what a send has. */
interface CheckFields {
  /**
   * The first check comes after this many milliseconds without a verdict, at most a day.
   * @default firstDelayMs of the group's check policy
   */
  checkAfterMs?: number | undefined;
  /** Opaque text of at most 1024 bytes that comes back in every check. @default none */
  checkContext?: string | undefined;
}

/** `POST /v1/transactions`, as a caller writes it. */
export interface PrepareInput extends SendInput, CheckFields {}
/** `POST /v1/transactions`, as parsed: defaults filled in. */
export interface PrepareRequest extends SendRequest, CheckFields {}

/** Not public: a batch extends it, and whoever parses one takes `PrepareRequest`. */
export const prepareSchema = z
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
/** `POST /v1/transactions`: stores half messages, which wait for a verdict. */
export const PrepareRequest = named<PrepareRequest, PrepareInput>()(prepareSchema);

/** Not public: a batch extends it, and whoever parses one takes `SendRequest`. */
export const sendSchema = z
  .strictObject(sendFields)
  .superRefine(expectsInOnePlace)
  .superRefine(expectsNothingDropped)
  .superRefine(compensatesForSomebody)
  .superRefine(leavesNothingOpen)
  .meta({ id: 'SendRequest' });
/** `POST /v1/messages`: prepare and commit in one step. */
export const SendRequest = named<SendRequest, SendInput>()(sendSchema);

import { type ErrorCode, errorRow } from './error-codes.js';
import type {
  CompensationState,
  GroupState,
  HistoryEventName,
  MessageState,
  PARKED_REASONS,
  ReceiptKind,
  STATES,
} from './words.js';

/*
 * What callers get that do not name their version. SDKs of 0.1 read codes, states and events as
 * closed lists, and one word that they do not know spoils a whole answer for them, a batch of 500
 * included. So they get the words of 0.1 only: for an error its older code, for a state the one
 * that came nearest, and of the history and the receipts what 0.1 had.
 *
 * Whoever adds a word to a list says here what older callers get: the types do not let it be
 * forgotten. A code says so itself, as its `before` in the table of codes.
 */

/** The words of 0.1. They never change. */
interface WordsOf01 {
  state: 'prepared' | 'committed' | 'forwarded' | 'rolledBack' | 'parked';
  parkedReason: 'unresolved' | 'undeliverable';
  messageState: 'half' | 'pending' | 'forwarded' | 'unrouted' | 'cancelled' | 'rolledBack';
  groupState: 'waiting' | 'consumed' | 'failed';
  compensationState: 'owed' | 'done' | 'withdrawn';
  receiptKind: 'consumed' | 'failed';
  historyEvent:
    | 'check'
    | 'resolve'
    | 'parked'
    | 'unrouted'
    | 'forwardFailed'
    | 'conflict'
    | 'cancelled';
}

interface Words {
  state: (typeof STATES)[number];
  parkedReason: (typeof PARKED_REASONS)[number];
  messageState: MessageState;
  groupState: GroupState;
  compensationState: CompensationState;
  receiptKind: ReceiptKind;
  historyEvent: HistoryEventName;
}

/** Each word of a list that 0.1 did not have, with the one that stands for it there. */
type Before<List extends keyof Words> = Record<
  Exclude<Words[List], WordsOf01[List]>,
  WordsOf01[List]
>;
/** Each entry of a list that 0.1 did not have: older callers do not get it at all. */
type LeftOut<List extends keyof Words> = Record<Exclude<Words[List], WordsOf01[List]>, 'left out'>;

/** What is newer than 0.1. */
export interface NewerWords {
  /** States of a transaction, each with its older word. */
  state: Readonly<Record<string, string>>;
  /** Reasons for parking, each with its older word. */
  parkedReason: Readonly<Record<string, string>>;
  /** States of a message, each with its older word. */
  messageState: Readonly<Record<string, string>>;
  /** States of a group, each with its older word. */
  groupState: Readonly<Record<string, string>>;
  /** States of a compensation, each with its older word. */
  compensationState: Readonly<Record<string, string>>;
  /** Kinds of receipts that are left out. */
  receiptKind: Readonly<Record<string, 'left out'>>;
  /** Events of the history that are left out. */
  historyEvent: Readonly<Record<string, 'left out'>>;
  /** The older code, or `undefined` for a code that is as old as 0.1. */
  code(code: string): string | undefined;
}

const STATE: Before<'state'> = {};
const PARKED_REASON: Before<'parkedReason'> = {};
const MESSAGE_STATE: Before<'messageState'> = {};
const GROUP_STATE: Before<'groupState'> = {};
const COMPENSATION_STATE: Before<'compensationState'> = {};
const RECEIPT_KIND: LeftOut<'receiptKind'> = {};
const HISTORY_EVENT: LeftOut<'historyEvent'> = {};

const NEWER_THAN_0_1: NewerWords = {
  state: STATE,
  parkedReason: PARKED_REASON,
  messageState: MESSAGE_STATE,
  groupState: GROUP_STATE,
  compensationState: COMPENSATION_STATE,
  receiptKind: RECEIPT_KIND,
  historyEvent: HISTORY_EVENT,
  code: (code) => errorRow(code)?.before,
};

type Rewrite = (value: unknown) => unknown;

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const each =
  (rewrite: Rewrite): Rewrite =>
  (value) =>
    Array.isArray(value) ? value.map(rewrite) : value;

/** Rewrites the members that are there and named; all others stay. */
const members =
  (rewrites: Readonly<Record<string, Rewrite>>): Rewrite =>
  (value) => {
    if (!isRecord(value)) return value;
    const rewritten = Object.entries(value).map(([key, member]) => [
      key,
      Object.hasOwn(rewrites, key) ? rewrites[key]?.(member) : member,
    ]);
    return Object.fromEntries(rewritten);
  };

const word =
  (before: Readonly<Record<string, string>>): Rewrite =>
  (value) =>
    typeof value === 'string' && Object.hasOwn(before, value) ? before[value] : value;

/** Leaves out the entries of a list whose `member` is a newer word. */
const without =
  (member: string, newer: Readonly<Record<string, 'left out'>>): Rewrite =>
  (value) => {
    if (!Array.isArray(value)) return value;
    return value.filter((entry) => {
      const said: unknown = isRecord(entry) ? entry[member] : undefined;
      return typeof said !== 'string' || !Object.hasOwn(newer, said);
    });
  };

/** A problem with the older code, and all that goes with a code. */
const problem =
  (older: NewerWords['code']): Rewrite =>
  (value) => {
    if (!isRecord(value) || typeof value.code !== 'string') return value;
    const code = older(value.code);
    const row = code === undefined ? undefined : errorRow(code as ErrorCode);
    if (code === undefined || row === undefined) return value;
    const { status, retryable, title } = row;
    return { ...value, type: `urn:escrowmq:error:${code}`, title, status, code, retryable };
  };

/**
 * The answer of any route, or a problem, as a caller gets it that does not name its version. What
 * stands in an answer has one meaning by its name, so one description of them all is enough; who
 * asks for another place of a word adds it here.
 *
 * @param newer what 0.1 did not have @default all that this version has more
 */
export function forOlderCaller(body: unknown, newer: NewerWords = NEWER_THAN_0_1): unknown {
  const state = word(newer.state);
  const transaction = {
    state,
    parkedReason: word(newer.parkedReason),
    messages: each(
      members({
        state: word(newer.messageState),
        ordering: members({ waitsFor: members({ state }) }),
      }),
    ),
    groups: each(members({ state: word(newer.groupState) })),
    receipts: without('kind', newer.receiptKind),
    compensations: each(members({ state: word(newer.compensationState) })),
    history: without('event', newer.historyEvent),
  };
  const result = (value: unknown): unknown => {
    const rewritten = members({ answer: members({ state }), problem: problem(newer.code) })(value);
    const refused = isRecord(rewritten) ? rewritten.problem : undefined;
    return isRecord(rewritten) && isRecord(refused)
      ? { ...rewritten, status: refused.status }
      : rewritten;
  };
  const rewrite = members({
    ...transaction,
    transactions: each(members(transaction)),
    results: each(result),
  });
  return problem(newer.code)(rewrite(body));
}

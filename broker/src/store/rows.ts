import type { Closed, DecisionRecord, Message, StateName } from '@escrowmq/protocol';
import { type Expectation, expectationsOf, expectationsOfAll } from '../domain/expectations.js';
import type { Found } from '../domain/ports.js';
import {
  byProducer,
  type Committed,
  type MessageMask,
  messageBit,
  type NewTransaction,
  type State,
  type TraceContext,
} from '../domain/transaction.js';
import { idText, NEVER } from './sql.js';

/** The columns that say where a transaction stands. */
export const STATE_COLUMNS = `id, state, due_at, producer_group, message_count, pending, checks,
  unanswered, attempts, parked_reason, parked_at, finished_at,
  decision, decided_at, decided_by, decision_reason`;

export interface StateRow {
  id: Uint8Array;
  state: StateName;
  due_at: number;
  producer_group: string;
  message_count: number;
  pending: number;
  checks: number;
  unanswered: number;
  attempts: number;
  parked_reason: 'none' | 'unresolved' | 'undeliverable';
  parked_at: number;
  finished_at: number;
  decision: 'none' | 'commit' | 'rollback';
  decided_at: number;
  /** Null stands for the producer, whose verdict is the usual one and writes no name. */
  decided_by: string | null;
  decision_reason: string | null;
}

/** What a transaction carries beside its messages, as one JSON column. */
export interface Details {
  businessKeys?: string[];
  /** Groups that must consume every message. */
  expects?: string[];
  /**
   * Groups that must consume some of the messages, where these name them. Here, as the next field,
   * so that a receipt need not read the messages.
   */
  expectsSome?: [consumerGroup: string, messages: MessageMask][];
  checkContext?: string;
  trace?: TraceContext;
  /** Messages whose failure is compensated. */
  compensates?: MessageMask;
  /** Of what is compensated: it had no prepare. */
  sent?: true;
}

const compensated = (messages: readonly Message[]): MessageMask =>
  messages.reduce(
    (mask, { compensate }, number) => (compensate === true ? mask + messageBit(number) : mask),
    0,
  );

export function detailsJson(content: NewTransaction): string | null {
  const { businessKeys, expects, checkContext, trace, messages, kind } = content;
  const compensates = compensated(messages);
  const some = expects.length > 0 ? [] : expectationsOf(content);
  const details: Details = {
    ...(businessKeys.length > 0 ? { businessKeys } : {}),
    ...(expects.length > 0 ? { expects } : {}),
    ...(some.length > 0
      ? { expectsSome: some.map(({ consumerGroup, messages }) => [consumerGroup, messages]) }
      : {}),
    ...(checkContext === undefined ? {} : { checkContext }),
    ...(trace.traceparent === undefined ? {} : { trace }),
    ...(compensates === 0 ? {} : { compensates }),
    ...(compensates > 0 && kind.op === 'send' ? { sent: true } : {}),
  };
  return Object.keys(details).length === 0 ? null : JSON.stringify(details);
}

export const parseDetails = (json: string | null): Details =>
  json === null ? {} : (JSON.parse(json) as Details);

export const expectationsIn = (
  { expects = [], expectsSome = [] }: Details,
  messageCount: number,
): Expectation[] => [
  ...expectationsOfAll(expects, messageCount),
  ...expectsSome.map(([consumerGroup, messages]) => ({ consumerGroup, messages })),
];

/** Which times have come follows from the state; one that is missing there is a damaged row. */
function needed(time: number, column: string, row: StateRow): number {
  if (time === NEVER) throw new Error(`${idText(row.id)} is ${row.state} without ${column}`);
  return time;
}

export function stateOf(row: StateRow): State {
  switch (row.state) {
    case 'prepared': {
      const { checks, unanswered } = row;
      return { state: 'prepared', checks, unanswered, dueAt: needed(row.due_at, 'due_at', row) };
    }
    case 'committed': {
      const { pending, attempts } = row;
      return { state: 'committed', pending, attempts, dueAt: needed(row.due_at, 'due_at', row) };
    }
    case 'forwarded':
      return { state: 'forwarded', forwardedAt: needed(row.finished_at, 'finished_at', row) };
    case 'rolledBack':
      return { state: 'rolledBack', decidedAt: needed(row.decided_at, 'decided_at', row) };
    case 'parked': {
      const parkedAt = needed(row.parked_at, 'parked_at', row);
      return row.parked_reason === 'undeliverable'
        ? { state: 'parked', reason: 'undeliverable', pending: row.pending, parkedAt }
        : { state: 'parked', reason: 'unresolved', parkedAt };
    }
  }
}

/** Of `escrow_unsettled`, where a transaction has a row there. */
export const CLOSED_COLUMNS = 'closed_at, closed_by, closed_reason';

export interface ClosedColumns {
  closed_at: number | null;
  closed_by: string | null;
  closed_reason: string | null;
}

export function closedOf(row: ClosedColumns): Closed | undefined {
  if (row.closed_at === null || row.closed_at === NEVER) return undefined;
  return { at: row.closed_at, by: row.closed_by ?? '', reason: row.closed_reason ?? '' };
}

type DecisionColumns = Pick<StateRow, 'decision' | 'decided_at' | 'decided_by' | 'decision_reason'>;

export function decisionOf(row: DecisionColumns): DecisionRecord | undefined {
  if (row.decision === 'none') return undefined;
  return {
    decision: row.decision,
    at: row.decided_at,
    by: row.decided_by ?? byProducer.by,
    ...(row.decision_reason === null ? {} : { reason: row.decision_reason }),
  };
}

/**
 * A row whose commit takes more than the decision has no message pending until then: so a plain
 * commit passes it over by a column that its UPDATE has at hand.
 */
const takesMore = ({ decision, pending }: StateRow): boolean =>
  decision === 'none' && pending === 0;

export function foundRow(row: StateRow): Found {
  const decision = decisionOf(row);
  return {
    kind: 'row',
    id: idText(row.id),
    producerGroup: row.producer_group,
    state: stateOf(row),
    messageCount: row.message_count,
    ...(takesMore(row) ? { takesMore: true } : {}),
    ...(decision === undefined ? {} : { decision }),
  };
}

export interface TombstoneRow {
  id: Uint8Array;
  producer_group: string;
  content_hash: Uint8Array;
  decision: 'commit' | 'rollback';
  decided_at: number;
  decided_by: string | null;
  decision_reason: string | null;
}

export function foundTombstone(row: TombstoneRow): Found {
  const decision = decisionOf(row);
  if (decision === undefined) throw new Error(`tombstone ${idText(row.id)} has no decision`);
  return { kind: 'tombstone', id: idText(row.id), producerGroup: row.producer_group, decision };
}

export const COMMITTED_COLUMNS =
  'id, producer_group, prepared_at, decided_at, pending, attempts, bytes, details, messages';

export interface CommittedRow {
  id: Uint8Array;
  producer_group: string;
  prepared_at: number;
  decided_at: number;
  pending: number;
  attempts: number;
  bytes: number;
  details: string | null;
  messages: string;
}

export function committedOf(row: CommittedRow): Committed {
  const { businessKeys, expects, checkContext, trace } = parseDetails(row.details);
  return {
    id: idText(row.id),
    producerGroup: row.producer_group,
    businessKeys: businessKeys ?? [],
    expects: expects ?? [],
    checkContext,
    messages: JSON.parse(row.messages) as Message[],
    trace: trace ?? {},
    preparedAt: row.prepared_at,
    decidedAt: row.decided_at,
    pending: row.pending,
    attempts: row.attempts,
    bytes: row.bytes,
  };
}

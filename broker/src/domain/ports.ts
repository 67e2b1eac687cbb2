import type {
  CheckPolicy,
  CheckRequest,
  Decision,
  DecisionRecord,
  HistoryEvent,
  MessageData,
  SearchAnswer,
  SearchQuery,
  StateName,
  TransactionView,
} from '@escrowmq/protocol';
import type { Alert, BrokerAlert, SettlementAlert } from './alert.js';
import type { Cancel, CancelResult } from './cancelling.js';
import type { CompensationKey, CompensationToSave, DueCompensation } from './compensations.js';
import type { InstanceStore } from './instances.js';
import type { DataRefusal, Supplied } from './open-messages.js';
import type { Place } from './ordering.js';
import type { Outgoing } from './outgoing.js';
import type { SettlementStore } from './settlement.js';
import type {
  Committed,
  DecidedBy,
  MessageMask,
  NewTransaction,
  State,
  StoreTime,
  TraceContext,
} from './transaction.js';
import type { WebhookAlert, WebhookStore } from './webhook.js';

/*
 * What the engine needs from the world, as interfaces: a store, a publisher, somebody to ask a
 * producer, somebody to tell people. The folders of floor 2 implement them; the engine gets them
 * as parameters and each part asks for the few functions it uses.
 */

// ---- the store: intake

export type Inserted =
  | { kind: 'created' }
  /** The id is taken by the same content: a repeat. */
  | { kind: 'repeated'; found: Found }
  /** The id is taken by other content. */
  | { kind: 'different' }
  /** Nothing is stored of this one, and why; the others of its batch are no worse for it. */
  | { kind: 'refused'; error: Error };

/** A row or, after retention, what its tombstone still tells. */
export type Found =
  | {
      kind: 'row';
      id: string;
      producerGroup: string;
      state: State;
      messageCount: number;
      /**
       * Not decided, and a commit takes more than the decision: data that prepare left open, or
       * places in the lines of ordering keys.
       */
      takesMore?: true;
      decision?: DecisionRecord;
    }
  | { kind: 'tombstone'; id: string; producerGroup: string; decision: DecisionRecord };

export interface Verdict {
  id: string;
  decision: Decision;
  decidedBy: DecidedBy;
  /** Only a transaction of this group; another group's is as good as absent. @default any group */
  producerGroup?: string | undefined;
  /** A commit's data for what prepare left open; a commit without any shares its UPDATE. */
  supplied?: Supplied | undefined;
}

export type VerdictResult =
  /** This call moved the row. After a commit the caller forwards it, while the lease lasts. */
  | { kind: 'moved' }
  /** The decision was on record already, this one or the other. */
  | { kind: 'decided'; found: Found }
  /** A commit whose data does not fit what prepare left open; nothing is decided. */
  | { kind: 'refused'; refusal: DataRefusal }
  | { kind: 'unknown' };

// ---- the store: checks

export interface DueCheck {
  id: string;
  state: Extract<State, { state: 'prepared' }>;
  producerGroup: string;
  checkContext?: string;
  businessKeys: string[];
  preparedAt: StoreTime;
  /** As it was at prepare, so that the work of the check is in the same trace. */
  trace?: TraceContext;
  /** Since when no check was answered; absent after an answer. */
  unansweredSince?: StoreTime;
  /** An alert for this transaction has been raised since it was last answered. */
  alerted: boolean;
}

/** Groups whose checks are taken only when they are overdue by that much. */
export interface Overdue {
  /** Never empty. */
  groups: readonly string[];
  overdueMs: number;
}

export interface CheckToSave {
  id: string;
  /** The row as it was when the check began; the write is guarded by it. */
  from: Extract<State, { state: 'prepared' }>;
  to: State;
  unansweredSince?: StoreTime;
  alerted: boolean;
  history: HistoryEvent[];
}

// ---- the store: forwarding

export interface ForwardingToSave {
  id: string;
  /** Messages confirmed and not returned, or dropped: cleared from the mask. */
  done: MessageMask;
  /** Those of `done` that were dropped unrouted. */
  unrouted: MessageMask;
  to: State;
  /** What is left only waits, or was interrupted over another's refusal: no attempt. @default false */
  onlyWaits?: boolean;
  /** As the round found them; absent where nothing is ordered. */
  places?: readonly Place[];
  lastFailure?: string;
  history: HistoryEvent[];
}

export interface ClaimedForwards {
  now: StoreTime;
  due: Committed[];
  /** Rows of which nothing may go before others of its ordering key: not due any more. */
  putOff: number;
}

/** A committed transaction of which nothing may go before `dueAt`. */
export interface ForwardToPostpone {
  id: string;
  dueAt: StoreTime;
}

// ---- the store: the rest

export interface ProducerGroup {
  name: string;
  checkUrls: string[];
  compensationUrls: string[];
  checkPolicy: CheckPolicy;
  /** Of these settings, as their caller counts; 0 as long as nobody has given one. */
  version: number;
  /** whsec_…, newest first; checks are signed with each. */
  signingSecrets: string[];
}

export interface GroupToSave {
  name: string;
  checkUrls: string[];
  compensationUrls: string[];
  checkPolicy: CheckPolicy;
  /** Lower than the stored one: nothing changes. @default the stored one stays, or 0 */
  version?: number | undefined;
  /** Used when the group is new, or when `rotate` asks for it. */
  newSecret: string;
  rotate: boolean;
  /** The service's own, the one in force first; `newSecret` is not used then. */
  signingSecrets?: readonly [string, string?] | undefined;
}

export interface StoreCounts {
  /** MySQL stops counting what is forwarded or rolled back at a million of each. */
  byState: Record<StateName, number>;
  purged: { forwarded: number; rolledBack: number };
  /**
   * When the oldest open transaction was prepared; absent when nothing is open. The oldest is that
   * of the lowest id in its state, so a store that several producers write to is out by as much as
   * their clocks differ.
   */
  oldestOpenAt?: StoreTime;
  /** Compensations that no producer has acknowledged yet. */
  compensationsOwed: number;
}

/**
 * Everything durable. Operations are named for their purpose and take batches; every change is a
 * guarded update, so any number of instances may share one store. Results come in the order of
 * the input. Rejects with `STORE_UNAVAILABLE` when the database can't be reached.
 */
export interface Store extends WebhookStore, InstanceStore, SettlementStore {
  /** Random, made with the schema: tells this store from any other on the same RabbitMQ. */
  readonly id: string;
  /** The store's clock. */
  now(): Promise<StoreTime>;
  /** Rejects unless a prepare would be made durable now. */
  proveWritable(): Promise<void>;
  /** What an operator should know of this store at its start, as sentences; none is the rule. */
  caveats(needs: { transactionBytesMax: number }): Promise<string[]>;

  /** All rows durable when it resolves. No id twice in one batch. */
  insert(batch: readonly NewTransaction[]): Promise<Inserted[]>;
  /** No id twice in one batch. A committed row is leased to the caller for `leaseMs`. */
  decide(batch: readonly Verdict[], leaseMs: number): Promise<VerdictResult[]>;
  find(ids: readonly string[]): Promise<Map<string, Found>>;

  /**
   * Leases due checks by pushing `dueAt` forward; oldest first, none of `exceptGroups`, and of the
   * groups in `onlyOverdue` what is overdue by that much.
   */
  claimDueChecks(claim: {
    limit: number;
    leaseMs: number;
    exceptGroups: readonly string[];
    onlyOverdue?: readonly Overdue[];
  }): Promise<{ now: StoreTime; due: DueCheck[] }>;
  saveChecks(batch: readonly CheckToSave[]): Promise<void>;
  /** Makes prepared rows due at once: whoever leased them can't ask about them now. */
  releaseChecks(ids: readonly string[]): Promise<void>;

  /** Leases due committed rows, oldest first, at most `bytesMax` of messages but at least one. */
  claimDueForwards(claim: {
    limit: number;
    bytesMax: number;
    leaseMs: number;
  }): Promise<ClaimedForwards>;
  /** Committed rows by id, for whoever just moved them. */
  readCommitted(ids: readonly string[]): Promise<Committed[]>;
  /**
   * `woken`: committed rows that may go on because what was before them in the line of a key has left
   * it. They are leased to the caller, as by `decide`.
   *
   * @param leaseMs @default 0: they are due at once
   */
  saveForwards(batch: readonly ForwardingToSave[], leaseMs?: number): Promise<{ woken: string[] }>;
  /** Ends the lease of committed rows until the first of their messages may go. */
  postponeForwards(batch: readonly ForwardToPostpone[]): Promise<void>;
  /** Makes committed rows due at once: whoever leased them can't forward them now. */
  releaseForwards(ids: readonly string[]): Promise<void>;

  /** Takes back messages that wait for their time: all that are named, or none. */
  cancel(cancel: Cancel): Promise<CancelResult>;

  /** Moves one row for an operator, guarded by `from`; false when it had changed meanwhile. */
  resolve(change: { id: string; from: State; to: State; history: HistoryEvent }): Promise<boolean>;
  appendHistory(entries: readonly { id: string; event: HistoryEvent }[]): Promise<void>;

  /**
   * Leases due compensations by pushing `dueAt` forward, and counts the attempt that is to follow;
   * oldest first, none of `exceptGroups`.
   */
  claimDueCompensations(claim: {
    limit: number;
    leaseMs: number;
    exceptGroups: readonly string[];
  }): Promise<{ now: StoreTime; due: DueCompensation[] }>;
  /**
   * Resolves with those that were acknowledged although their group has consumed the message. Only
   * an acknowledgement moves what another instance has claimed meanwhile, or what was withdrawn.
   */
  saveCompensations(batch: readonly CompensationToSave[]): Promise<CompensationKey[]>;
  /** Makes claimed compensations due at once, and their attempt one that never was. */
  releaseCompensations(claimed: readonly DueCompensation[]): Promise<void>;
  /**
   * By an operator's word all that the transaction still owes is done; resolves with these, which
   * are named in the history as well. With none nothing is recorded.
   */
  endCompensations(end: { id: string; history: HistoryEvent }): Promise<CompensationKey[]>;

  view(id: string): Promise<TransactionView | undefined>;
  search(query: SearchQuery): Promise<SearchAnswer>;

  /**
   * Creates or changes a group, unless a higher version is stored; then not even its secret is
   * rotated. Resolves with what is stored now. `secretMade`: `newSecret` was taken.
   */
  saveGroup(
    group: GroupToSave,
  ): Promise<{ group: ProducerGroup; secretMade: boolean; applied: boolean }>;
  findGroup(name: string): Promise<ProducerGroup | undefined>;

  /**
   * Deletes up to `limit` finished rows older than that, leaving tombstones; counts them. Nothing of
   * which a group owes a word or a producer a compensation, unless it was closed that long ago.
   */
  purgeFinished(purge: { olderThanMs: number; limit: number }): Promise<number>;
  purgeTombstones(purge: { olderThanMs: number; limit: number }): Promise<number>;
  counts(): Promise<StoreCounts>;
  close(): Promise<void>;
}

// ---- RabbitMQ

export type PublishOutcome =
  | { kind: 'confirmed' }
  /** No queue was bound: RabbitMQ returned it, and confirmed it all the same. */
  | { kind: 'returned'; detail: string }
  | { kind: 'nacked'; detail: string }
  /** The connection, the channel or the time limit ended first: it may or may not be there. */
  | { kind: 'unconfirmed'; detail: string }
  /** Not its own doing: RabbitMQ closed the channel over another message. It may or may not be there. */
  | { kind: 'interrupted'; detail: string }
  /** It can't be sent as it is: the client library, RabbitMQ's permissions or the exchange refuse it. */
  | { kind: 'refused'; detail: string };

export type RabbitStatus = 'connected' | 'blocked' | 'disconnected';

export interface Publisher {
  /**
   * Publishes mandatory and persistent; never rejects. Calls beyond `room` wait for nothing: they
   * are answered `unconfirmed`.
   */
  publish(message: Outgoing): Promise<PublishOutcome>;
  /** Messages that the window of unconfirmed publishes takes now; 0 unless connected. */
  readonly room: number;
  readonly status: RabbitStatus;
}

// ---- producers

export type CheckOutcome =
  | {
      kind: 'answered';
      decision: 'commit' | 'rollback' | 'unknown';
      /** What a "commit" brings for messages that prepare left open. */
      messageData?: MessageData[] | undefined;
      endpoint: string;
      tookMs: number;
    }
  /** Timeout, 404, 5xx, garbage, a redirect, the wrong id, no route, an open breaker. */
  | { kind: 'unanswered'; endpoint?: string; tookMs: number; detail: string };

export interface Asker {
  /** Never rejects. The trace goes along where the question is a call. */
  ask(group: ProducerGroup, request: CheckRequest, trace?: TraceContext): Promise<CheckOutcome>;
  /** Checks of the group that would begin at once; without limit where none would be made. */
  roomFor(group: ProducerGroup): number;
  /** Groups whose endpoints take no further check now. */
  busyGroups(): string[];
}

// ---- people

export interface Observer {
  alert(alert: Alert | WebhookAlert | BrokerAlert | SettlementAlert): void;
  /**
   * Something failed that a pass will try again; never a body, a key or a secret. Said at once, then
   * at most once a minute with a count, however often it is called; ids in `what` make no other cause.
   */
  failed(what: string, error: unknown): void;
  /**
   * Something that nobody may miss and that may repeat. Said at once, then at most once a minute with
   * a count.
   *
   * @param about what it is about, such as a topic: two of them are told apart
   * @example observer.warn('no queue is bound', { topic }, topic)
   */
  warn(what: string, facts: Record<string, unknown>, about: string): void;
  /**
   * What failed by this name, or by this code of the protocol, works again: said once with how long
   * it took and how often it was. Not needed: what has not happened for a minute is over as well.
   */
  recovered(what: string): void;
  info(what: string, facts?: Record<string, unknown>): void;
  /** Adds to the counter; label values are few and never ids. */
  count(counter: CounterName, labels?: Record<string, string>, by?: number): void;
}

export type CounterName =
  | 'transactionsAccepted'
  | 'verdicts'
  | 'verdictConflicts'
  | 'checks'
  | 'publishes'
  | 'alerts'
  | 'receipts'
  | 'lateReceipts'
  | 'webhookCalls'
  | 'compensations'
  | 'purged'
  | 'failures';

import type { Caused } from './cause.js';
import type { GapReason } from './ephemeral/options.js';
import type { DeadReason } from './settle/next-step.js';

/** Which of the consumer's two connections: see connection.ts for why there are two. */
export type ConnectionName = 'consuming' | 'publishing';

/**
 * What a consumer tells its logger. Events carry ids, names and counts; never a body, a header or
 * a credential of ours. `error` is whatever your own code, or RabbitMQ's client, threw.
 */
export type ConsumerEvent =
  /** A connection is there: the first time, and again after every loss. */
  | ({ event: 'connected' } & OnConnection)
  /** A connection is gone, or could not be made; it is tried again. */
  | ({ event: 'connectionLost' } & OnConnection & TriedAgain & Caused)
  /** RabbitMQ is short of memory or disk and takes no publishes; retries and receipts wait. */
  | ({ event: 'blocked' } & OnConnection & Pick<Caused, 'cause'>)
  /** RabbitMQ takes publishes again. */
  | ({ event: 'unblocked' } & OnConnection)
  /** Deliveries flow: after `subscribe`, and again after every loss. */
  | ({ event: 'consuming' } & OnQueue)
  /** Deliveries do not flow any more; the subscription heals by itself. */
  | ({ event: 'consumingLost' } & TriedAgain & Caused & OnQueue)
  /** Nothing new is delivered until `resume`: by `pause`, and again after every reconnect. */
  | ({ event: 'paused' } & OnSubscription)
  /** Deliveries flow again, after `resume`. */
  | ({ event: 'resumed' } & OnSubscription)
  /** The channel for retries, dead letters and receipts is gone; it heals by itself. */
  | ({ event: 'publishingLost' } & TriedAgain & Caused)
  /** A message has failed and waits in a retry queue. */
  | ({ event: 'retryScheduled' } & Attempted & Delayed & Caused & OnMessage)
  /** A handler threw `RetryLater`, or the message is on its way through several retry queues. */
  | ({ event: 'postponed' } & Postponed & Delayed & Caused & OnMessage)
  /** The group gave a message up: it is in the dead-letter queue. */
  | ({ event: 'deadLettered' } & Dead & Attempted & Caused & OnMessage)
  /** The retry copy, dead letter or `failed` receipt was not confirmed: the original stays. */
  | ({ event: 'settlingFailed' } & GivenBack & Caused & OnMessage)
  /** Messages of an ephemeral subscription may be missing: its `onGap` is called. */
  | ({ event: 'gap' } & OnGap)
  /** `onGap` threw or took too long: it is called again, with a new queue. */
  | ({ event: 'gapFailed' } & OnGap & Caused)
  /** The handler of an ephemeral subscription failed, or the message was unfit for it. */
  | ({ event: 'messageDropped' } & Caused & OnMessage)
  /** The channel died before the message was acknowledged: RabbitMQ delivers it again. */
  | ({ event: 'deliveryLost' } & OnMessage)
  /** `consumed` receipts that did not reach RabbitMQ. Only what the broker displays suffers. */
  | ({ event: 'receiptsLost' } & Counted & Caused)
  /** Handlers that were still running when `close` stopped waiting; their messages come again. */
  | ({ event: 'drainTimedOut' } & StillRunning & OnQueue)
  /**
   * A handler called this when it had ended and its message was acknowledged: the work is done, but a
   * crash or a failure now loses it. Await it in the handler.
   */
  | ({ event: 'lateWork' } & OnWork & OnMessage)
  /**
   * The work of this sent nothing through its `tx`; said once for each subscription. Work on another
   * connection is not part of the transaction. No harm if there was nothing to do.
   */
  | ({ event: 'unusedTransaction' } & OnWork & OnMessage)
  /** Your own code threw where it decides nothing. What it was called for goes on without it. */
  | ({ event: 'callbackFailed' } & OnCallback & Caused & OnMessage)
  /**
   * A message whose routing key this subscription did not ask for, and how many since the last time
   * this was said. Its handler gets it. Another instance of the group asks for other keys, or the
   * key was bound once and is not listed any more.
   */
  | ({ event: 'messageUnasked' } & OnRoutingKey & Counted & OnMessage)
  /**
   * Another instance of the group subscribes differently, so that each gets what the other asked
   * for. Said once for each instance and subject, and again when it changes.
   */
  | ({ event: 'groupDisagrees' } & BothSettings & BetweenInstances)
  /** That is over: it agrees now, it has ended, or it has not been heard of for three minutes. */
  | ({ event: 'groupAgrees' } & WhyOver & BetweenInstances)
  /** The RabbitMQ user may not announce: instances of a group do not hear of each other. */
  | ({ event: 'announcementsRefused' } & Caused)
  /** Announcements that can't be read, and how many since the last time this was said. */
  | ({ event: 'announcementIgnored' } & Counted & Pick<Caused, 'cause'>)
  /** Old rows of a table are deleted from now on. Said once for each database, with its first purge. */
  | ({ event: 'housekeepingOn' } & OnTable & Kept)
  /** They could not be deleted, twice in a row; it is tried again. Said at most once in six hours. */
  | ({ event: 'housekeepingFailed' } & OnTable & Caused);

/** What a handler begins for its messages and has to await. */
export type WorkCall = 'once' | 'latest' | 'onceBatch';

/** On which of the two connections. */
interface OnConnection {
  /** Which of the two. */
  connection: ConnectionName;
}

/** What heals by itself, and when it is tried. */
interface TriedAgain {
  /** Milliseconds until the next attempt. */
  retryInMs: number;
}

/** How often it was tried. */
interface Attempted {
  /** Number of attempts of this group that have failed so far. */
  attempts: number;
}

/** How long it waits. */
interface Delayed {
  /** Milliseconds until it comes again. */
  delayMs: number;
}

/** How often it was put off. */
interface Postponed {
  /** How often a handler of this group has thrown `RetryLater` for it. */
  postponed: number;
}

/** Why a message was given up. */
interface Dead {
  /** `exhausted`: its attempts are used up; the others leave no attempt. */
  reason: DeadReason;
}

/** When it goes back to RabbitMQ. */
interface GivenBack {
  /** Milliseconds until it is given back to its queue, from which it comes again. */
  requeueInMs: number;
}

/** Where messages may be missing. */
interface OnGap {
  /** The topic of the ephemeral subscription. */
  topic: string;
  /** The queue is a new one, or it was full. */
  reason: GapReason;
}

/** How many. */
interface Counted {
  /** How many there were, since the last time this was said. */
  count: number;
}

/** What `close` waited for. */
interface StillRunning {
  /** Number of handlers that were still running. */
  running: number;
}

/** Which call of a handler it is about. */
interface OnWork {
  /** The function that the handler called. */
  call: WorkCall;
}

/** Which code of yours it is about. */
interface OnCallback {
  /** What threw: a listener on `message.signal`, or the `tracing` of the consumer. */
  callback: 'abort listener' | 'tracing';
}

/** Which routing key it is about. */
interface OnRoutingKey {
  /** That of the message. */
  routingKey: string;
}

/** What two instances subscribe with. */
interface BothSettings {
  /** The setting of this instance, as text. */
  mine: string;
  /** The setting of the other one, as text. */
  theirs: string;
}

/** Why a disagreement is over. */
interface WhyOver {
  /** It agrees now, it has ended, or it has not been heard of for three minutes. */
  why: 'agrees' | 'ended' | 'silent';
}

/** Which table of a service's own database. */
interface OnTable {
  /** Its name. */
  table: string;
}

/** How its rows are kept. */
interface Kept {
  /** Milliseconds for which rows are kept. */
  keptMs: number;
  /** Milliseconds between two purges. */
  everyMs: number;
}

/** Two instances of a group, and what is between them. */
export interface BetweenInstances {
  /** The topic that both subscribe to. */
  topic: string;
  /** The group of both. */
  group: string;
  /** The setting in which they differ. */
  about: 'routingKeys' | 'retryDelaysMs' | 'mode';
  /** This instance. */
  me: Instance;
  /** The other one. */
  other: Instance;
}

/** Who announced itself: one subscription in one process. */
export interface Instance {
  /** Name of its machine. */
  host: string;
  /** Tells this subscription from every other. */
  instance: string;
  /** Of its SDK. */
  version: string;
}

/** Which subscription. */
interface OnSubscription {
  /** Its topic. */
  topic: string;
  /** Its consumer group. */
  group: string;
}

/** Which queue of a group; the partition, from 0, where an ordered group has several. */
export interface OnQueue extends OnSubscription {
  /** Number of the partition, from 0; absent where there is one queue. */
  partition?: number;
}

/** Which message, for whom. */
export interface OnMessage extends OnSubscription {
  /** Its id; `undefined` for a foreign message without an id. */
  messageId: string | undefined;
}

/** Takes one event at a time; what it throws changes nothing. */
export type Log = (event: ConsumerEvent) => void;

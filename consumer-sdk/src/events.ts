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
  | { event: 'connected'; connection: ConnectionName }
  | ({ event: 'connectionLost'; connection: ConnectionName; retryInMs: number } & Caused)
  /** RabbitMQ is short of memory or disk and takes no publishes; retries and receipts wait. */
  | { event: 'blocked'; connection: ConnectionName; cause: string }
  | { event: 'unblocked'; connection: ConnectionName }
  /** Deliveries flow: after `subscribe`, and again after every loss. */
  | ({ event: 'consuming' } & OnQueue)
  | ({ event: 'consumingLost'; retryInMs: number } & Caused & OnQueue)
  /** Nothing new is delivered until `resume`: by `pause`, and again after every reconnect. */
  | { event: 'paused'; topic: string; group: string }
  | { event: 'resumed'; topic: string; group: string }
  | ({ event: 'publishingLost'; retryInMs: number } & Caused)
  | ({ event: 'retryScheduled'; attempts: number; delayMs: number } & Caused & OnMessage)
  /** A handler threw `RetryLater`, or the message is on its way through several retry queues. */
  | ({ event: 'postponed'; postponed: number; delayMs: number } & Caused & OnMessage)
  | ({ event: 'deadLettered'; reason: DeadReason; attempts: number } & Caused & OnMessage)
  /** The retry copy, dead letter or `failed` receipt was not confirmed: the original stays. */
  | ({ event: 'settlingFailed'; requeueInMs: number } & Caused & OnMessage)
  /** Messages of an ephemeral subscription may be missing: its `onGap` is called. */
  | { event: 'gap'; topic: string; reason: GapReason }
  /** `onGap` threw or took too long: it is called again, with a new queue. */
  | ({ event: 'gapFailed'; topic: string; reason: GapReason } & Caused)
  /** The handler of an ephemeral subscription failed, or the message was unfit for it. */
  | ({ event: 'messageDropped' } & Caused & OnMessage)
  /** The channel died before the message was acknowledged: RabbitMQ delivers it again. */
  | ({ event: 'deliveryLost' } & OnMessage)
  /** `consumed` receipts that did not reach RabbitMQ. Only what the broker displays suffers. */
  | ({ event: 'receiptsLost'; count: number } & Caused)
  /** Handlers that were still running when `close` stopped waiting; their messages come again. */
  | ({ event: 'drainTimedOut'; running: number } & OnQueue)
  /**
   * A handler called this when it had ended and its message was acknowledged: the work is done, but a
   * crash or a failure now loses it. Await it in the handler.
   */
  | ({ event: 'lateWork'; call: WorkCall } & OnMessage)
  /**
   * The work of this sent nothing through its `tx`; said once for each subscription. Work on another
   * connection is not part of the transaction. No harm if there was nothing to do.
   */
  | ({ event: 'unusedTransaction'; call: WorkCall } & OnMessage)
  /** Your own code threw where it decides nothing. What it was called for goes on without it. */
  | ({ event: 'callbackFailed'; callback: 'abort listener' | 'tracing' } & Caused & OnMessage)
  /**
   * A message whose routing key this subscription did not ask for, and how many since the last time
   * this was said. Its handler gets it. Another instance of the group asks for other keys, or the
   * key was bound once and is not listed any more.
   */
  | ({ event: 'messageUnasked'; routingKey: string; count: number } & OnMessage)
  /**
   * Another instance of the group subscribes differently, so that each gets what the other asked
   * for. Said once for each instance and subject, and again when it changes.
   */
  | ({ event: 'groupDisagrees'; mine: string; theirs: string } & BetweenInstances)
  /** That is over: it agrees now, it has ended, or it has not been heard of for three minutes. */
  | ({ event: 'groupAgrees'; why: 'agrees' | 'ended' | 'silent' } & BetweenInstances)
  /** The RabbitMQ user may not announce: instances of a group do not hear of each other. */
  | ({ event: 'announcementsRefused' } & Caused)
  /** Announcements that can't be read, and how many since the last time this was said. */
  | { event: 'announcementIgnored'; cause: string; count: number }
  /** Old rows of a table are deleted from now on. Said once for each database, with its first purge. */
  | { event: 'housekeepingOn'; table: string; keptMs: number; everyMs: number }
  /** They could not be deleted, twice in a row; it is tried again. Said at most once in six hours. */
  | ({ event: 'housekeepingFailed'; table: string } & Caused);

/** What a handler begins for its messages and has to await. */
export type WorkCall = 'once' | 'latest' | 'onceBatch';

/** Two instances of a group, and what is between them. */
export interface BetweenInstances {
  topic: string;
  group: string;
  about: 'routingKeys' | 'retryDelaysMs' | 'mode';
  me: Instance;
  other: Instance;
}

/** Who announced itself: one subscription in one process. */
export interface Instance {
  host: string;
  instance: string;
  /** Of its SDK. */
  version: string;
}

/** Which queue of a group; the partition, from 0, where an ordered group has several. */
export interface OnQueue {
  topic: string;
  group: string;
  partition?: number;
}

/** Which message, for whom. */
export interface OnMessage {
  topic: string;
  group: string;
  /** `undefined` for a foreign message without an id. */
  messageId: string | undefined;
}

export type Log = (event: ConsumerEvent) => void;

import type { GapReason } from './ephemeral/options.js';
import type { DeadReason } from './settle/next-step.js';

/** Which of the consumer's two connections: see connection.ts for why there are two. */
export type ConnectionName = 'consuming' | 'publishing';

/**
 * What a consumer tells its logger. Events carry ids, names and counts; never a body, a header or
 * a credential. `cause` is the message of an error, cut to 500 characters.
 */
export type ConsumerEvent =
  | { event: 'connected'; connection: ConnectionName }
  | { event: 'connectionLost'; connection: ConnectionName; cause: string; retryInMs: number }
  /** RabbitMQ is short of memory or disk and takes no publishes; retries and receipts wait. */
  | { event: 'blocked'; connection: ConnectionName; cause: string }
  | { event: 'unblocked'; connection: ConnectionName }
  /** Deliveries flow: after `subscribe`, and again after every loss. */
  | ({ event: 'consuming' } & OnQueue)
  | ({ event: 'consumingLost'; cause: string; retryInMs: number } & OnQueue)
  /** Nothing new is delivered until `resume`: by `pause`, and again after every reconnect. */
  | { event: 'paused'; topic: string; group: string }
  | { event: 'resumed'; topic: string; group: string }
  | { event: 'publishingLost'; cause: string; retryInMs: number }
  | ({ event: 'retryScheduled'; attempts: number; delayMs: number; cause: string } & OnMessage)
  /** A handler threw `RetryLater`, or the message is on its way through several retry queues. */
  | ({ event: 'postponed'; postponed: number; delayMs: number; cause: string } & OnMessage)
  | ({ event: 'deadLettered'; reason: DeadReason; attempts: number; cause: string } & OnMessage)
  /** The retry copy, dead letter or `failed` receipt was not confirmed: the original stays. */
  | ({ event: 'settlingFailed'; cause: string; requeueInMs: number } & OnMessage)
  /** Messages of an ephemeral subscription may be missing: its `onGap` is called. */
  | { event: 'gap'; topic: string; reason: GapReason }
  /** `onGap` threw or took too long: it is called again, with a new queue. */
  | { event: 'gapFailed'; topic: string; reason: GapReason; cause: string }
  /** The handler of an ephemeral subscription failed, or the message was unfit for it. */
  | ({ event: 'messageDropped'; cause: string } & OnMessage)
  /** The channel died before the message was acknowledged: RabbitMQ delivers it again. */
  | ({ event: 'deliveryLost' } & OnMessage)
  /** `consumed` receipts that did not reach RabbitMQ. Only what the broker displays suffers. */
  | { event: 'receiptsLost'; count: number; cause: string }
  /** Handlers that were still running when `close` stopped waiting; their messages come again. */
  | ({ event: 'drainTimedOut'; running: number } & OnQueue);

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

/**
 * Calls the user's logger outside our own flow: one that throws is an uncaught exception, which is
 * what it deserves, and not a connection that goes down because a listener threw.
 */
export function logTo(logger: Log | undefined): Log {
  if (logger === undefined) return () => {};
  return (event) => queueMicrotask(() => logger(event));
}

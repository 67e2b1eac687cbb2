import { optionNames, refuseUnknown } from '@escrowmq/protocol';
import type { Message } from '../delivery/message.js';
import {
  HANDLER_TIMEOUT_MS_MAX,
  integer,
  parseSubscribeOptions,
  refuse,
  type SubscribeOptions,
  type SubscribeSettings,
} from '../options.js';
import type { Given } from '../typed/named-topic.js';

/** Options of `subscribeBatch`. */
export interface BatchOptions extends Omit<SubscribeOptions, 'ordered'> {
  /** Number of messages in one call of the handler, at most. @default 100 */
  batchMax?: number;
  /**
   * How long the first message of a batch waits for others, in ms. With 0 a batch is what has
   * arrived while the one before was handled: small when there is little to do, full when there is
   * much, and nothing ever waits for company. @default 0
   */
  batchWaitMs?: number;
  /**
   * Messages out at a time (RabbitMQ's prefetch), at least `batchMax`: while one batch is handled,
   * the next one gathers. @default twice `batchMax`
   */
  concurrency?: number;
  /** Of one call of the handler, with all of its batch. @default 60000 */
  handlerTimeoutMs?: number;
}

/** What a handler of batches may return: which of them failed; the others are consumed. */
export interface BatchOutcome {
  /** `error` as if the handler had thrown it for that message alone. */
  failed: readonly {
    /** One of the batch. */
    message: Message;
    /** Why it failed; a `PermanentError` or a `RetryLater` counts as such. */
    error: unknown;
  }[];
}

/**
 * Resolves: all are consumed, but for those in `failed`. Throws or takes too long: all have failed,
 * and each is retried by itself.
 */
export type BatchHandler<Data> = (
  messages: readonly Message<Data>[],
  // biome-ignore lint/suspicious/noConfusingVoidType: a handler without a word of failures returns nothing
) => Promise<BatchOutcome | void> | BatchOutcome | void;

export interface BatchSettings {
  subscribe: SubscribeSettings;
  batchMax: number;
  batchWaitMs: number;
}

/** One transaction of a hundred rows costs about two of one row. */
const BATCH_MAX_DEFAULT = 100;
/** Half of what may be out at a time. */
const BATCH_MAX_MAX = 1_000;
/** Whoever waits longer for company wants a scheduled job. */
const BATCH_WAIT_MS_MAX = 60_000;

const BATCH_SUBSCRIBE_OPTIONS = optionNames<BatchOptions>({
  topic: true,
  group: true,
  routingKeys: true,
  concurrency: true,
  retryDelaysMs: true,
  retryJitter: true,
  handlerTimeoutMs: true,
  drainTimeoutMs: true,
  batchMax: true,
  batchWaitMs: true,
});

/** @throws EscrowError INVALID_NAME, INVALID_CONFIGURATION or UNKNOWN_FIELD */
export function parseBatchOptions(options: Given<BatchOptions>): BatchSettings {
  refuseUnknown(options, BATCH_SUBSCRIBE_OPTIONS, 'subscribeBatch');
  const { batchMax = BATCH_MAX_DEFAULT, batchWaitMs = 0, ...others } = options;
  refuse(
    [
      ...integer('batchMax', batchMax, { min: 1, max: BATCH_MAX_MAX }),
      ...integer('batchWaitMs', batchWaitMs, { min: 0, max: BATCH_WAIT_MS_MAX }),
    ],
    'subscribeBatch',
  );
  const concurrency = options.concurrency ?? 2 * batchMax;
  const subscribe = parseSubscribeOptions({ ...others, concurrency }, 'subscribeBatch');
  refuse(fitProblems({ subscribe, batchMax, batchWaitMs }), 'subscribeBatch');
  return { subscribe, batchMax, batchWaitMs };
}

/** What no option can say alone. */
function fitProblems({ subscribe, batchMax, batchWaitMs }: BatchSettings) {
  const { concurrency, handlerTimeoutMs } = subscribe;
  if (concurrency < batchMax) {
    const message = `must be at least batchMax (${batchMax}), or no batch is ever full`;
    return [{ path: 'concurrency', message }];
  }
  // The last message out waits for the batch that runs, which may be one message, and for those
  // ahead of it: RabbitMQ counts its half hour from the delivery.
  const batches = Math.ceil((concurrency - 1) / batchMax) + 1;
  const heldMs = batchWaitMs + batches * handlerTimeoutMs;
  if (heldMs <= HANDLER_TIMEOUT_MS_MAX) return [];
  const message =
    `is too long: a message may wait for ${batches} batches, ${heldMs} ms in all, and RabbitMQ ` +
    `closes the channel soon after ${HANDLER_TIMEOUT_MS_MAX}; shorten it, or lower concurrency`;
  return [{ path: 'handlerTimeoutMs', message }];
}

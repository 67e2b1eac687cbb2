import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { ConsumerGroupName } from './names.js';

/**
 * The durable queue that receipts travel back through, in batches. Each store has its own, named in
 * the `replyTo` of its messages, so that brokers with different stores may share a RabbitMQ.
 */
export const receiptsQueueName = (storeId: string) => `escrow:receipts:${storeId}`;

const RECEIPTS_QUEUE_NAME = /^escrow:receipts:[A-Za-z0-9-]{1,64}$/;

/** A message's `replyTo` is somebody's word: receipts go to queues of this name only. */
export const isReceiptsQueue = (name: unknown): name is string =>
  typeof name === 'string' && RECEIPTS_QUEUE_NAME.test(name);

/**
 * Whoever comes first declares it, broker or consumer, so both say the same. RabbitMQ 4 would drop a
 * message for good after 20 returns; no number means "never" on every version, so the limit is
 * the largest AMQP integer.
 */
export const RECEIPTS_QUEUE_ARGUMENTS = {
  /** It survives the loss of a node. */
  'x-queue-type': 'quorum',
  /** How often a message may come back. */
  'x-delivery-limit': 2_147_483_647,
} as const;

/** A consumer group's word on one message, as it travels back over RabbitMQ. */
export interface ConsumerReceipt {
  /** `<transactionId>-<n>`, the AMQP message id. */
  messageId: string;
  /** Whose word it is. */
  consumerGroup: string;
  /** Consumed, or failed for good. */
  kind: 'consumed' | 'failed';
  /** Number of attempts that failed. @default none is said */
  attempts?: number | undefined;
  /** Why the last attempt failed, at most 500 characters. @default none is said */
  cause?: string | undefined;
}

/** A consumer group's word on one message: consumed, or failed for good. */
export const ConsumerReceipt = named<ConsumerReceipt>()(
  z.object({
    messageId: z.string(),
    consumerGroup: ConsumerGroupName,
    kind: z.enum(['consumed', 'failed']),
    attempts: z.int().min(0).optional().describe('Attempts that failed'),
    cause: z.string().max(LIMITS.causeCharsMax).optional(),
  }),
);

/** The body of one message on a queue of receipts. */
export interface ReceiptBatch {
  /** 1 to 500. */
  receipts: ConsumerReceipt[];
}

/** The body of one message on a queue of receipts. */
export const ReceiptBatch = named<ReceiptBatch>()(
  z
    .object({ receipts: z.array(ConsumerReceipt).min(1).max(LIMITS.receiptsPerMessageMax) })
    .meta({ id: 'ReceiptBatch' }),
);

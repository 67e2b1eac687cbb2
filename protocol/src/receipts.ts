import { z } from 'zod';
import { LIMITS } from './limits.js';
import { ConsumerGroupName } from './names.js';

/** The durable queue that receipts travel back through, in batches. */
export const RECEIPTS_QUEUE = 'escrow:receipts';

/**
 * Whoever comes first declares it, broker or consumer, so both say the same. RabbitMQ 4 would drop a
 * message for good after 20 returns; no number means "never" on every version, so the limit is
 * the largest AMQP integer.
 */
export const RECEIPTS_QUEUE_ARGUMENTS = {
  'x-queue-type': 'quorum',
  'x-delivery-limit': 2_147_483_647,
} as const;

/** A consumer group's word on one message: consumed, or failed for good. */
export const ConsumerReceipt = z.object({
  messageId: z.string(),
  consumerGroup: ConsumerGroupName,
  kind: z.enum(['consumed', 'failed']),
  attempts: z.int().min(0).optional(),
  cause: z.string().max(LIMITS.causeCharsMax).optional(),
});
export type ConsumerReceipt = z.output<typeof ConsumerReceipt>;

/** The body of one message on `RECEIPTS_QUEUE`. */
export const ReceiptBatch = z
  .object({ receipts: z.array(ConsumerReceipt).min(1).max(LIMITS.receiptsPerMessageMax) })
  .meta({ id: 'ReceiptBatch' });
export type ReceiptBatch = z.output<typeof ReceiptBatch>;

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { ConsumerGroupName } from './names.js';

/** The durable queue that receipts travel back through, in batches. */
export const RECEIPTS_QUEUE = 'escrow:receipts';

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

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { BusinessKey, ProducerGroupName, TransactionId, textOfBytes } from './names.js';

/**
 * The broker's question to a producer group, sent as `POST` with Standard Webhooks signature
 * headers: what became of the local transaction?
 */
export const CheckRequest = z
  .object({
    id: TransactionId,
    producerGroup: ProducerGroupName,
    checkContext: textOfBytes(LIMITS.checkContextBytesMax).optional(),
    businessKeys: z.array(BusinessKey),
    preparedAt: z.int().describe("UTC milliseconds of the store's clock"),
    attempt: z.int().min(1),
  })
  .meta({ id: 'CheckRequest' });
export type CheckRequest = z.output<typeof CheckRequest>;

/**
 * The only answer that decides: HTTP 200 with exactly this. `unknown` says "still open, ask
 * again"; anything else counts as no answer and decides nothing.
 */
export const CheckAnswer = z
  .strictObject({ id: TransactionId, decision: z.enum(['commit', 'rollback', 'unknown']) })
  .meta({ id: 'CheckAnswer' });
export type CheckAnswer = z.output<typeof CheckAnswer>;

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { AnsweredState, Closed } from './transactions.js';

/** `GET /v1/business-keys/{key}`. */
export const BusinessKeyQuery = z.strictObject({
  waitMs: z.coerce
    .number()
    .int()
    .min(0)
    .max(LIMITS.waitMsMax)
    .default(0)
    .describe('Answer when everything on the key has settled, or after this long'),
});

/**
 * The transactions on a key that have not settled. Settled: rolled back, or every message that
 * names groups in `expects` was consumed by each of them; where none names any, forwarded.
 * `settled` is true when none is left. What an operator closed stands here as long as its tombstone,
 * and so does what was purged after a group gave up: neither has settled.
 */
export const BusinessKeyAnswer = z
  .object({
    businessKey: z.string(),
    settled: z.boolean(),
    transactions: z.array(
      z.object({
        id: z.string(),
        producerGroup: z.string(),
        state: AnsweredState,
        waitingFor: z.array(z.string()).describe('Expected groups that have not consumed yet'),
        failed: z
          .array(z.string())
          .describe('Expected groups that gave up for good, or said nothing until it was closed'),
        closed: Closed.optional(),
        purged: z
          .boolean()
          .optional()
          .describe('True when only a tombstone is left: it can not settle any more'),
      }),
    ),
  })
  .meta({ id: 'BusinessKeyAnswer' });
export type BusinessKeyAnswer = z.infer<typeof BusinessKeyAnswer>;

/**
 * Whether a transaction on a key may still settle by itself, so that waiting for it makes sense:
 * it is not parked, closed or purged, and somebody other than groups that gave up is still to come.
 */
export function maySettle(transaction: BusinessKeyAnswer['transactions'][number]): boolean {
  const { state, waitingFor, failed, closed, purged } = transaction;
  if (state === 'parked' || closed !== undefined || purged === true) return false;
  return !(failed.length > 0 && waitingFor.length === 0);
}

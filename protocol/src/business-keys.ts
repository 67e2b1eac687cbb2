import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { AnsweredState, Closed } from './transactions.js';

/** Query of `GET /v1/business-keys/{key}`. */
export interface BusinessKeyQuery {
  /** Milliseconds to wait for what has not settled. */
  waitMs: number;
}

/** The same before it is parsed: everything in a query is text. */
export interface BusinessKeyQueryInput {
  /**
   * Answers when everything on the key has settled, or after this many milliseconds, at most 30000.
   * @default 0
   */
  waitMs?: unknown;
}

/** `GET /v1/business-keys/{key}`. */
export const BusinessKeyQuery = named<BusinessKeyQuery, BusinessKeyQueryInput>()(
  z.strictObject({
    waitMs: z.coerce
      .number()
      .int()
      .min(0)
      .max(LIMITS.waitMsMax)
      .default(0)
      .describe('Answer when everything on the key has settled, or after this long'),
  }),
);

/** A transaction on a business key that has not settled. */
export interface UnsettledTransaction {
  /** A UUID of version 7. */
  id: string;
  /** The group that answers for it. */
  producerGroup: string;
  /** What the broker still owes it. */
  state: AnsweredState;
  /** Expected groups that have not consumed yet. */
  waitingFor: string[];
  /** Expected groups that gave up for good, or said nothing until it was closed. */
  failed: string[];
  /** An operator closed it; absent where none did. */
  closed?: Closed | undefined;
  /** True when only a tombstone is left: it can not settle any more. */
  purged?: boolean | undefined;
}

/**
 * The transactions on a key that have not settled. Settled: rolled back, or every message that
 * names groups in `expects` was consumed by each of them; where none names any, forwarded.
 * `settled` is true when none is left. What an operator closed stands here as long as its tombstone,
 * and so does what was purged after a group gave up: neither has settled.
 */
export interface BusinessKeyAnswer {
  /** The key that was asked for. */
  businessKey: string;
  /** True when no transaction on it is left that has not settled. */
  settled: boolean;
  /** Those that have not settled. */
  transactions: UnsettledTransaction[];
}

/** The transactions on a key that have not settled. */
export const BusinessKeyAnswer = named<BusinessKeyAnswer>()(
  z
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
    .meta({ id: 'BusinessKeyAnswer' }),
);

/**
 * Whether a transaction on a key may still settle by itself, so that waiting for it makes sense:
 * it is not parked, closed or purged, and somebody other than groups that gave up is still to come.
 */
export function maySettle(transaction: UnsettledTransaction): boolean {
  const { state, waitingFor, failed, closed, purged } = transaction;
  if (state === 'parked' || closed !== undefined || purged === true) return false;
  return !(failed.length > 0 && waitingFor.length === 0);
}

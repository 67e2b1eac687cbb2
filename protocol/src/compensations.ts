import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import {
  BusinessKey,
  ConsumerGroupName,
  ProducerGroupName,
  TransactionId,
  textOfBytes,
} from './names.js';
import { type OpenWord, openWord } from './open-words.js';
import { COMPENSATION_STATES, type CompensationState } from './words.js';

/**
 * The broker's call to a producer group, sent as `POST` with Standard Webhooks signature headers: a
 * consumer group has given up for good on a message that has `compensate`. The same one may come
 * more than once; `id`, `message` and `consumerGroup` together tell it from every other.
 */
export interface CompensationRequest {
  /** Of the transaction, a UUID of version 7. */
  id: string;
  /** The group that is called. */
  producerGroup: string;
  /** As the prepare gave it; absent where it gave none. */
  checkContext?: string | undefined;
  /** As the prepare gave them. */
  businessKeys: string[];
  /** When it was prepared, in UTC milliseconds of the store's clock. */
  preparedAt: number;
  /** It was sent in one step: there is no local transaction that a check could ask about. */
  sent?: true | undefined;
  /** The consumer group that gave up. */
  consumerGroup: string;
  /** Number of the message in its transaction, from 0. */
  message: number;
  /** `<transactionId>-<n>`, the AMQP message id. */
  messageId: string;
  /** Number of attempts of the consumer group that failed; absent where it did not say. */
  attempts?: number | undefined;
  /** Why the last one failed, at most 500 characters. */
  cause?: string | undefined;
  /** Number of this call, from 1. */
  attempt: number;
}

/** The broker's call to a producer group: a consumer group has given up on a message for good. */
export const CompensationRequest = named<CompensationRequest>()(
  z
    .object({
      id: TransactionId,
      producerGroup: ProducerGroupName,
      checkContext: textOfBytes(LIMITS.checkContextBytesMax).optional(),
      businessKeys: z.array(BusinessKey),
      preparedAt: z.int().describe("UTC milliseconds of the store's clock"),
      sent: z
        .literal(true)
        .optional()
        .describe(
          'It was sent in one step: there is no local transaction that a check could ask about',
        ),
      consumerGroup: ConsumerGroupName.describe('That gave up'),
      message: z.int().min(0).describe('Number of the message in its transaction, from 0'),
      messageId: z.string(),
      attempts: z.int().min(0).optional().describe('Attempts of the consumer group that failed'),
      cause: z.string().max(LIMITS.causeCharsMax).optional().describe('Why the last one failed'),
      attempt: z.int().min(1).describe('Of this call'),
    })
    .meta({ id: 'CompensationRequest' }),
);

/**
 * The only answer that ends it: HTTP 200 with exactly this. Anything else counts as no answer, and
 * the call is repeated, for as long as it takes.
 */
export interface CompensationAnswer {
  /** Of the transaction that the call was about. */
  id: string;
  /** The compensation is done. */
  acknowledged: true;
}

/** The only answer that ends a compensation: HTTP 200 with exactly this. */
export const CompensationAnswer = named<CompensationAnswer>()(
  z
    .strictObject({ id: TransactionId, acknowledged: z.literal(true) })
    .meta({ id: 'CompensationAnswer' }),
);

/**
 * One compensation in the view of its transaction.
 *
 * - `owed`: the producer group is called until it acknowledges
 * - `done`: it has acknowledged, or an operator has said that it is done; then the history names him
 * - `withdrawn`: the consumer group has consumed the message after all, before that
 */
export interface Compensation {
  /** The consumer group that gave up. */
  consumerGroup: string;
  /** Number of the message in its transaction, from 0. */
  message: number;
  /** `owed`, `done` or `withdrawn`; a newer broker may say another word. */
  state: OpenWord<CompensationState>;
  /** Number of calls that were begun. */
  attempts: number;
  /** Why the last call failed; absent where none did. */
  lastFailure?: string | undefined;
  /** When it came into this state, in UTC milliseconds of the store's clock. */
  at: number;
}

/** One compensation in the view of its transaction. */
export const Compensation = named<Compensation>()(
  z
    .object({
      consumerGroup: z.string(),
      message: z.int().describe('Number of the message in its transaction, from 0'),
      state: openWord(COMPENSATION_STATES),
      attempts: z.int().describe('Calls that were begun'),
      lastFailure: z.string().optional(),
      at: z
        .int()
        .describe("When it came into this state, in UTC milliseconds of the store's clock"),
    })
    .meta({ id: 'Compensation' }),
);

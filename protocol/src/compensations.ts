import { z } from 'zod';
import { LIMITS } from './limits.js';
import {
  BusinessKey,
  ConsumerGroupName,
  ProducerGroupName,
  TransactionId,
  textOfBytes,
} from './names.js';
import { openWord } from './open-words.js';
import { COMPENSATION_STATES } from './words.js';

/**
 * The broker's call to a producer group, sent as `POST` with Standard Webhooks signature headers: a
 * consumer group has given up for good on a message that has `compensate`. The same one may come
 * more than once; `id`, `message` and `consumerGroup` together tell it from every other.
 */
export const CompensationRequest = z
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
  .meta({ id: 'CompensationRequest' });
export type CompensationRequest = z.output<typeof CompensationRequest>;

/**
 * The only answer that ends it: HTTP 200 with exactly this. Anything else counts as no answer, and
 * the call is repeated, for as long as it takes.
 */
export const CompensationAnswer = z
  .strictObject({ id: TransactionId, acknowledged: z.literal(true) })
  .meta({ id: 'CompensationAnswer' });
export type CompensationAnswer = z.output<typeof CompensationAnswer>;

/**
 * One compensation in the view of its transaction.
 *
 * - `owed`: the producer group is called until it acknowledges
 * - `done`: it has acknowledged, or an operator has said that it is done; then the history names him
 * - `withdrawn`: the consumer group has consumed the message after all, before that
 */
export const Compensation = z
  .object({
    consumerGroup: z.string(),
    message: z.int().describe('Number of the message in its transaction, from 0'),
    state: openWord(COMPENSATION_STATES),
    attempts: z.int().describe('Calls that were begun'),
    lastFailure: z.string().optional(),
    at: z.int().describe("When it came into this state, in UTC milliseconds of the store's clock"),
  })
  .meta({ id: 'Compensation' });
export type Compensation = z.output<typeof Compensation>;

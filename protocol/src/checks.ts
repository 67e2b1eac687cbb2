import { z } from 'zod';
import { LIMITS } from './limits.js';
import { MessageDataList } from './messages.js';
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
 * again"; anything else counts as no answer and decides nothing. A "commit" brings the data that
 * prepare left open; without it, it is no answer.
 */
export const CheckAnswer = z
  .strictObject({
    id: TransactionId,
    decision: z.enum(['commit', 'rollback', 'unknown']),
    messageData: MessageDataList.optional(),
  })
  .superRefine(({ decision, messageData }, context) => {
    if (messageData === undefined || decision === 'commit') return;
    context.addIssue({
      code: 'custom',
      path: ['messageData'],
      message: `goes with the decision "commit", not with "${decision}"`,
    });
  })
  .meta({ id: 'CheckAnswer' });
export type CheckAnswerInput = z.input<typeof CheckAnswer>;
export type CheckAnswer = z.output<typeof CheckAnswer>;

/**
 * `POST /v1/producer-groups/{group}/checks`, for producers that the broker can't call: brings the
 * answers to earlier checks and waits for new ones.
 */
export const PollChecksRequest = z
  .strictObject({
    waitMs: z
      .int()
      .min(0)
      .max(LIMITS.waitMsMax)
      .default(0)
      .describe('Answers as soon as there is a check, or empty after this long'),
    limit: z.int().min(1).max(LIMITS.checksPerPollMax).default(8).describe('Checks in one answer'),
    answers: z
      .array(CheckAnswer)
      .max(LIMITS.checksPerPollMax)
      .default([])
      .describe('To checks of earlier polls; a late one decides as well'),
  })
  .meta({ id: 'PollChecksRequest' });
export type PollChecksInput = z.input<typeof PollChecksRequest>;
export type PollChecksRequest = z.output<typeof PollChecksRequest>;

export const PollChecksAnswer = z
  .object({ checks: z.array(CheckRequest) })
  .meta({ id: 'PollChecksAnswer' });
export type PollChecksAnswer = z.infer<typeof PollChecksAnswer>;

/** The same answer as whoever polls reads it: each check is then judged by itself. */
export const PolledChecks = z.object({ checks: z.array(z.unknown()) });

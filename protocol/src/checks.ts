import { z } from 'zod';
import { LIMITS } from './limits.js';
import { type MessageData, MessageDataList } from './message-data.js';
import { named } from './named.js';
import { BusinessKey, ProducerGroupName, TransactionId, textOfBytes } from './names.js';

/**
 * The broker's question to a producer group, sent as `POST` with Standard Webhooks signature
 * headers: what became of the local transaction?
 */
export interface CheckRequest {
  /** Of the transaction, a UUID of version 7. */
  id: string;
  /** The group that is asked. */
  producerGroup: string;
  /** As the prepare gave it; absent where it gave none. */
  checkContext?: string | undefined;
  /** As the prepare gave them. */
  businessKeys: string[];
  /** When it was prepared, in UTC milliseconds of the store's clock. */
  preparedAt: number;
  /** Number of this check, from 1. */
  attempt: number;
}

/** The broker's question to a producer group: what became of the local transaction? */
export const CheckRequest = named<CheckRequest>()(
  z
    .object({
      id: TransactionId,
      producerGroup: ProducerGroupName,
      checkContext: textOfBytes(LIMITS.checkContextBytesMax).optional(),
      businessKeys: z.array(BusinessKey),
      preparedAt: z.int().describe("UTC milliseconds of the store's clock"),
      attempt: z.int().min(1),
    })
    .meta({ id: 'CheckRequest' }),
);

/**
 * The only answer that decides: HTTP 200 with exactly this. `unknown` says "still open, ask
 * again"; anything else counts as no answer and decides nothing. A "commit" brings the data that
 * prepare left open; without it, it is no answer.
 */
export interface CheckAnswer {
  /** Of the transaction that was asked about. */
  id: string;
  /** What became of the local transaction; `unknown`: still open, ask again. */
  decision: 'commit' | 'rollback' | 'unknown';
  /** The data that prepare left open; with `commit` only. @default none is open */
  messageData?: MessageData[] | undefined;
}
/** An answer as the producer writes it. */
export type CheckAnswerInput = CheckAnswer;

/** The only answer that decides: HTTP 200 with exactly this. */
export const CheckAnswer = named<CheckAnswer>()(
  z
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
    .meta({ id: 'CheckAnswer' }),
);

/**
 * `POST /v1/producer-groups/{group}/checks`, for producers that the broker can't call: brings the
 * answers to earlier checks and waits for new ones.
 */
export interface PollChecksRequest {
  /** Milliseconds to wait for a check: answers as soon as there is one, or empty after this long. */
  waitMs: number;
  /** Number of checks in one answer, at most. */
  limit: number;
  /** To checks of earlier polls; a late one decides as well. */
  answers: CheckAnswer[];
}

/** A poll as the producer writes it. */
export interface PollChecksInput {
  /**
   * Answers as soon as there is a check, or empty after this many milliseconds, at most 30000.
   * @default 0
   */
  waitMs?: number | undefined;
  /** Number of checks in one answer, 1 to 64. @default 8 */
  limit?: number | undefined;
  /** To checks of earlier polls, at most 64; a late one decides as well. @default [] */
  answers?: CheckAnswer[] | undefined;
}

const pollChecksSchema = z
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

/** `POST /v1/producer-groups/{group}/checks`, for producers that the broker can't call. */
export const PollChecksRequest = named<PollChecksRequest, PollChecksInput>()(pollChecksSchema);

/** A poll whose answers nobody has looked at yet. */
export interface PollOfAnswers extends Omit<PollChecksRequest, 'answers'> {
  /** Each is a `CheckAnswer`, or none. */
  answers: unknown[];
}

/** The same poll before its defaults are filled in. */
export interface PollOfAnswersInput extends Omit<PollChecksInput, 'answers'> {
  /** Each is a `CheckAnswer`, or none. @default [] */
  answers?: unknown[] | undefined;
}

/** The same poll as the broker reads it: an answer that is wrong keeps no other from deciding. */
export const PollOfAnswers = named<PollOfAnswers, PollOfAnswersInput>()(
  pollChecksSchema.extend({
    answers: z.array(z.unknown()).max(LIMITS.checksPerPollMax).default([]),
  }),
);

/** What a poll brings. */
export interface PollChecksAnswer {
  /** To be answered within the policy's `timeoutMs`, by the next poll; may be empty. */
  checks: CheckRequest[];
}

/** What a poll brings. */
export const PollChecksAnswer = named<PollChecksAnswer>()(
  z.object({ checks: z.array(CheckRequest) }).meta({ id: 'PollChecksAnswer' }),
);

/** The same answer as whoever polls reads it: each check is then judged by itself. */
export interface PolledChecks {
  /** Each is a `CheckRequest`, or none. */
  checks: unknown[];
}

/** The same answer as whoever polls reads it: each check is then judged by itself. */
export const PolledChecks = named<PolledChecks>()(z.object({ checks: z.array(z.unknown()) }));

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import {
  oneWayToSetSecrets,
  PUT_ANSWER,
  PUT_OPTIONS,
  type PutAnswer,
  type PutInput,
  type PutOptions,
} from './settings.js';

/** How a group's endpoints are called, for checks and compensations. */
export interface CheckPolicy {
  /** The first check comes this many milliseconds after the prepare. */
  firstDelayMs: number;
  /** The delay between two checks grows up to this many milliseconds. */
  delayMsMax: number;
  /** Number of answers `unknown` after which the transaction is parked. */
  unknownMax: number;
  /** Limit for one answer, in milliseconds. */
  timeoutMs: number;
  /** Number of calls at a time, per endpoint. */
  concurrencyMax: number;
  /** An alert comes when no answer came for this many milliseconds; calls go on. */
  alertAfterMs: number;
}

/** A check policy as a caller writes it: every field has a default. */
export interface CheckPolicyInput {
  /** The first check comes this many milliseconds after the prepare, at most a day. @default 10000 */
  firstDelayMs?: number | undefined;
  /**
   * Delays double from `firstDelayMs` up to this many milliseconds, with 20 % of jitter; 100 to a day.
   * @default 300000
   */
  delayMsMax?: number | undefined;
  /** Number of answers `unknown` after which the transaction is parked, 1 to 1000. @default 15 */
  unknownMax?: number | undefined;
  /** Limit for one answer, in milliseconds, 100 to 30000. @default 3000 */
  timeoutMs?: number | undefined;
  /** Number of calls at a time, per endpoint, 1 to 64. @default 8 */
  concurrencyMax?: number | undefined;
  /** An alert comes when no answer came for this many milliseconds; calls go on. @default 3600000 */
  alertAfterMs?: number | undefined;
}

const checkPolicySchema = z
  .strictObject({
    firstDelayMs: z
      .int()
      .min(0)
      .max(LIMITS.checkAfterMsMax)
      .default(10_000)
      .describe('First check this long after prepare'),
    delayMsMax: z
      .int()
      .min(100)
      .max(LIMITS.checkAfterMsMax)
      .default(300_000)
      .describe('Delays double from firstDelayMs up to this, with 20 % of jitter'),
    unknownMax: z
      .int()
      .min(1)
      .max(1000)
      .default(15)
      .describe('Answers "unknown" after which the transaction is parked'),
    timeoutMs: z.int().min(100).max(30_000).default(3_000).describe('Limit for one answer'),
    concurrencyMax: z.int().min(1).max(64).default(8).describe('Calls at a time per endpoint'),
    alertAfterMs: z
      .int()
      .min(0)
      .default(3_600_000)
      .describe('Alert when no answer came for this long; calls go on'),
  })
  .meta({ id: 'CheckPolicy' });

/** How a group's endpoints are called, for checks and compensations. Every field has a default. */
export const CheckPolicy = named<CheckPolicy, CheckPolicyInput>()(checkPolicySchema);

/** A URL that the broker may be asked to call. */
export const CheckUrl = named<string>()(
  z.string().max(LIMITS.checkUrlCharsMax).refine(isCallableUrl, {
    error: 'must be an http or https URL without user, password or fragment',
  }),
);

function isCallableUrl(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return false;
  return url.username === '' && url.password === '' && url.hash === '';
}

/** `PUT /v1/producer-groups/{group}`, as a caller writes it. */
export interface ProducerGroupInput extends PutInput {
  /**
   * Where the group answers checks: http or https, without user, password or fragment, at most 8. Which
   * may be called says `ESCROW_CALLBACK_ALLOW` of the broker. `[]` for a group that polls.
   */
  checkUrls: string[];
  /** Called when a message that has `compensate` was given up for good, at most 8. @default [] */
  compensationUrls?: string[] | undefined;
  /** How the endpoints are called. @default {} */
  checkPolicy?: CheckPolicyInput | undefined;
}

/** `PUT /v1/producer-groups/{group}`, as parsed: defaults filled in. */
export interface ProducerGroupRequest extends PutOptions {
  /** Where the group answers checks; none for a group that polls. */
  checkUrls: string[];
  /** Called when a message that has `compensate` was given up for good. */
  compensationUrls: string[];
  /** How the endpoints are called. */
  checkPolicy: CheckPolicy;
}

/** `PUT /v1/producer-groups/{group}`. */
export const ProducerGroupRequest = named<ProducerGroupRequest, ProducerGroupInput>()(
  z
    .strictObject({
      checkUrls: z.array(CheckUrl).max(LIMITS.checkUrlsPerGroupMax),
      compensationUrls: z
        .array(CheckUrl)
        .max(LIMITS.checkUrlsPerGroupMax)
        .default([])
        .describe('Called when a message that has "compensate" was given up for good'),
      checkPolicy: CheckPolicy.prefault({}),
      ...PUT_OPTIONS,
    })
    .superRefine(oneWayToSetSecrets)
    .meta({ id: 'ProducerGroupRequest' }),
);

/** What a PUT has replaced. */
export interface ReplacedGroup {
  /** The check endpoints that it had. */
  checkUrls: string[];
  /** The compensation endpoints that it had. */
  compensationUrls: string[];
  /** The secret that was in force was another. */
  signingSecret: boolean;
}

/** A producer group as it is registered. */
export interface ProducerGroupAnswer extends Omit<PutAnswer, 'version'> {
  /** Its name. */
  producerGroup: string;
  /** Where it answers checks. */
  checkUrls: string[];
  /** Where it is called for compensations; an older broker leaves it out. */
  compensationUrls?: string[] | undefined;
  /** How the endpoints are called. */
  checkPolicy: CheckPolicy;
  /** Number of the stored settings; 0 as long as nobody has given one. */
  version?: number | undefined;
  /** To a PUT that took endpoints away or changed the secret: what they were. */
  replaced?: ReplacedGroup | undefined;
}

/** The same before defaults of the policy are filled in. */
export interface ProducerGroupAnswerInput extends Omit<ProducerGroupAnswer, 'checkPolicy'> {
  /** How the endpoints are called. */
  checkPolicy: CheckPolicyInput;
}

/** A producer group as it is registered. */
export const ProducerGroupAnswer = named<ProducerGroupAnswer, ProducerGroupAnswerInput>()(
  z
    .object({
      producerGroup: z.string(),
      checkUrls: z.array(z.string()),
      compensationUrls: z.array(z.string()).optional(),
      // Not strict: a newer broker may have more of it.
      checkPolicy: z.object(checkPolicySchema.shape),
      ...PUT_ANSWER,
      version: PUT_ANSWER.version.optional(),
      replaced: z
        .object({
          checkUrls: z.array(z.string()),
          compensationUrls: z.array(z.string()),
          signingSecret: z.boolean().describe('The one in force was another'),
        })
        .optional()
        .describe('To a PUT that took endpoints away or changed the secret: what they were'),
    })
    .meta({ id: 'ProducerGroupAnswer' }),
);

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { oneWayToSetSecrets, PUT_ANSWER, PUT_OPTIONS } from './settings.js';

/** How a group's endpoints are called, for checks and compensations. Every field has a default. */
export const CheckPolicy = z
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
export type CheckPolicy = z.output<typeof CheckPolicy>;

/** A URL that the broker may be asked to call. */
export const CheckUrl = z.string().max(LIMITS.checkUrlCharsMax).refine(isCallableUrl, {
  error: 'must be an http or https URL without user, password or fragment',
});

function isCallableUrl(value: string): boolean {
  if (!URL.canParse(value)) return false;
  const url = new URL(value);
  if (url.protocol !== 'http:' && url.protocol !== 'https:') return false;
  return url.username === '' && url.password === '' && url.hash === '';
}

/** `PUT /v1/producer-groups/{group}`. */
export const ProducerGroupRequest = z
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
  .meta({ id: 'ProducerGroupRequest' });
export type ProducerGroupInput = z.input<typeof ProducerGroupRequest>;
export type ProducerGroupRequest = z.output<typeof ProducerGroupRequest>;

export const ProducerGroupAnswer = z
  .object({
    producerGroup: z.string(),
    checkUrls: z.array(z.string()),
    compensationUrls: z.array(z.string()).optional(),
    // Not strict: a newer broker may have more of it.
    checkPolicy: z.object(CheckPolicy.shape),
    ...PUT_ANSWER,
    version: PUT_ANSWER.version.optional(),
    replaced: z
      .object({
        checkUrls: z.array(z.string()),
        compensationUrls: z.array(z.string()),
        signingSecret: z.boolean().describe('The one in force was another'),
      })
      .optional()
      .describe('To a PUT that changed endpoints or secret: what they were'),
  })
  .meta({ id: 'ProducerGroupAnswer' });
export type ProducerGroupAnswer = z.infer<typeof ProducerGroupAnswer>;

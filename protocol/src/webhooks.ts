import { z } from 'zod';
import { ConsumerGroupName, RoutingKey, Topic } from './names.js';
import { CheckUrl } from './producer-groups.js';
import { oneWayToSetSecrets, PUT_ANSWER, PUT_OPTIONS } from './settings.js';

/** Why each limit is where it is. */
export const WEBHOOK_LIMITS = {
  /** Each is a channel and about nine quorum queues; RabbitMQ keeps some thousands of them well. */
  webhooksMax: 500,
  /** One `queue.bind` each on every connect. */
  routingKeysMax: 100,
  concurrencyMax: 64,
  /** An endpoint that needs longer should take the message and work on it afterwards. */
  timeoutMsMax: 60_000,
  /** Each distinct delay is a queue. */
  retriesMax: 16,
  /** What waits longer than a day for its next attempt belongs into a schedule. */
  delayMsMax: 24 * 60 * 60 * 1000,
  giveUpAfterMsMax: 30 * 24 * 60 * 60 * 1000,
} as const;

/** The same rule as the consumer SDK's; its queues and bindings carry this name. */
export const WebhookName = ConsumerGroupName;

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Twelve attempts within a day, and six queues for them. */
const DELAYS_MS_DEFAULT = [
  5 * SECOND,
  30 * SECOND,
  5 * MINUTE,
  5 * MINUTE,
  30 * MINUTE,
  30 * MINUTE,
  2 * HOUR,
  2 * HOUR,
  6 * HOUR,
  6 * HOUR,
  6 * HOUR,
];

export const WebhookRetry = z
  .strictObject({
    delaysMs: z
      .array(z.int().min(1).max(WEBHOOK_LIMITS.delayMsMax))
      .min(1)
      .max(WEBHOOK_LIMITS.retriesMax)
      .refine((delays) => delays.every((delay, at) => delay >= (delays[at - 1] ?? 0)), {
        error: 'must not shrink: the later, the longer',
      })
      .default(DELAYS_MS_DEFAULT)
      .describe(
        'The pause after the first failure, after the second, and so on: one attempt more than there are pauses. Each distinct one is a queue in RabbitMQ',
      ),
    jitter: z
      .number()
      .min(0)
      .max(1)
      .default(0.2)
      .describe('A pause is shortened by up to this share of it, at random'),
  })
  .meta({ id: 'WebhookRetry' });
export type WebhookRetry = z.output<typeof WebhookRetry>;

/** What may be changed at any time. */
const settings = {
  routingKeys: z
    .array(RoutingKey)
    .min(1)
    .max(WEBHOOK_LIMITS.routingKeysMax)
    .default(['#'])
    .describe("Which messages of the topic, as RabbitMQ's topic patterns (* one word, # any)"),
  url: CheckUrl.describe('http or https; ESCROW_CALLBACK_ALLOW says which may be called'),
  concurrency: z
    .int()
    .min(1)
    .max(WEBHOOK_LIMITS.concurrencyMax)
    .default(4)
    .describe('Calls at a time, by each broker instance'),
  timeoutMs: z
    .int()
    .min(100)
    .max(WEBHOOK_LIMITS.timeoutMsMax)
    .default(10_000)
    .describe('Limit for one answer'),
  retry: WebhookRetry.prefault({}),
  giveUpAfterMs: z
    .int()
    .min(1_000)
    .max(WEBHOOK_LIMITS.giveUpAfterMsMax)
    .default(3 * 24 * HOUR)
    .describe(
      'A message that fails and is older than this is given up, attempts left or not. Counted from its prepare, or from when it was due, or from when the webhook was last enabled, whichever came last',
    ),
};

export const WebhookSettings = z.strictObject(settings).meta({ id: 'WebhookSettings' });
export type WebhookSettings = z.output<typeof WebhookSettings>;

/** `PUT /v1/webhooks/{name}`. */
export const WebhookRequest = z
  .strictObject({
    topic: Topic.describe('Can not change afterwards'),
    group: ConsumerGroupName.optional().describe(
      'The consumer group whose queue holds the messages. Can not change afterwards. Default: the name of the webhook',
    ),
    ...settings,
    ...PUT_OPTIONS,
    enabled: z
      .boolean()
      .optional()
      .describe(
        'true enables a webhook that was disabled, false disables it. Left out: as it is, and a new one is enabled',
      ),
  })
  .superRefine(oneWayToSetSecrets)
  .meta({ id: 'WebhookRequest' });
export type WebhookInput = z.input<typeof WebhookRequest>;
export type WebhookRequest = z.output<typeof WebhookRequest>;

export const WebhookAnswer = z
  .object({
    name: z.string(),
    topic: z.string(),
    group: z.string(),
    ...WebhookSettings.shape,
    state: z.enum(['active', 'disabled']),
    disabled: z
      .object({ since: z.int().describe('UTC milliseconds'), reason: z.string() })
      .optional()
      .describe('Since when and why; its messages wait in their queue'),
    ...PUT_ANSWER,
  })
  .meta({ id: 'WebhookAnswer' });
export type WebhookAnswer = z.infer<typeof WebhookAnswer>;

export const WebhookList = z
  .object({ webhooks: z.array(WebhookAnswer) })
  .meta({ id: 'WebhookList' });
export type WebhookList = z.infer<typeof WebhookList>;

/** The answer to `DELETE /v1/webhooks/{name}`. */
export const WebhookDeleted = z
  .object({
    name: z.string(),
    queues: z
      .array(z.string())
      .describe(
        'Queues in RabbitMQ that are left with what they hold. Nothing comes into them any more; delete them there, or create the webhook again and it goes on with them',
      ),
  })
  .meta({ id: 'WebhookDeleted' });
export type WebhookDeleted = z.infer<typeof WebhookDeleted>;

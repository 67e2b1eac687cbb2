import { z } from 'zod';
import { named } from './named.js';
import { ConsumerGroupName, RoutingKey, Topic } from './names.js';
import { CheckUrl } from './producer-groups.js';
import {
  oneWayToSetSecrets,
  PUT_ANSWER,
  PUT_OPTIONS,
  type PutAnswer,
  type PutInput,
  type PutOptions,
} from './settings.js';

/** Why each limit is where it is. */
export const WEBHOOK_LIMITS = {
  /** Each is a channel and about nine quorum queues; RabbitMQ keeps some thousands of them well. */
  webhooksMax: 500,
  /** One `queue.bind` each on every connect. */
  routingKeysMax: 100,
  /** Calls at a time, by each broker instance. */
  concurrencyMax: 64,
  /** An endpoint that needs longer should take the message and work on it afterwards. */
  timeoutMsMax: 60_000,
  /** Each distinct delay is a queue. */
  retriesMax: 16,
  /** What waits longer than a day for its next attempt belongs into a schedule. */
  delayMsMax: 24 * 60 * 60 * 1000,
  /** What is a month old is of use to nobody. */
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

/** When a call is tried again. */
export interface WebhookRetry {
  /** The pauses in milliseconds after the first failure, after the second, and so on. */
  delaysMs: number[];
  /** A pause is shortened by up to this share of it, at random. */
  jitter: number;
}

/** When a call is tried again, as a caller writes it. */
export interface WebhookRetryInput {
  /**
   * The pauses in milliseconds after the first failure, after the second, and so on: one attempt more
   * than there are pauses, 1 to 16 that do not shrink, each at most a day. Each distinct one is a queue in
   * RabbitMQ.
   * @default [5000, 30000, 300000, 300000, 1800000, 1800000, 7200000, 7200000, 21600000, 21600000, 21600000]
   */
  delaysMs?: number[] | undefined;
  /** A pause is shortened by up to this share of it, at random; 0 to 1. @default 0.2 */
  jitter?: number | undefined;
}

/** When a call is tried again. */
export const WebhookRetry = named<WebhookRetry, WebhookRetryInput>()(
  z
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
    .meta({ id: 'WebhookRetry' }),
);

/** What of a webhook may be changed at any time. */
export interface WebhookSettings {
  /** Which messages of the topic, as RabbitMQ's topic patterns. */
  routingKeys: string[];
  /** Where messages are posted to. */
  url: string;
  /** Number of calls at a time, by each broker instance. */
  concurrency: number;
  /** Limit for one answer, in milliseconds. */
  timeoutMs: number;
  /** When a call is tried again. */
  retry: WebhookRetry;
  /** A message that fails and is older than this many milliseconds is given up, attempts left or not. */
  giveUpAfterMs: number;
}

/** What of a webhook may be changed at any time, as a caller writes it. */
export interface WebhookSettingsInput {
  /**
   * Which messages of the topic, as RabbitMQ's topic patterns (`*` one word, `#` any), 1 to 100.
   * @default ['#']
   */
  routingKeys?: string[] | undefined;
  /** Where messages are posted to, http or https; `ESCROW_CALLBACK_ALLOW` says which may be called. */
  url: string;
  /** Number of calls at a time, by each broker instance, 1 to 64. @default 4 */
  concurrency?: number | undefined;
  /** Limit for one answer, in milliseconds, 100 to 60000. @default 10000 */
  timeoutMs?: number | undefined;
  /** When a call is tried again. @default {} */
  retry?: WebhookRetryInput | undefined;
  /**
   * A message that fails and is older than this many milliseconds is given up, attempts left or not; 1
   * second to 30 days. Counted from its prepare, or from when it was due, or from when the webhook was
   * last enabled, whichever came last. @default 259200000
   */
  giveUpAfterMs?: number | undefined;
}

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

/** What of a webhook may be changed at any time. */
export const WebhookSettings = named<WebhookSettings, WebhookSettingsInput>()(
  z.strictObject(settings).meta({ id: 'WebhookSettings' }),
);

/** What of a webhook is not among its settings. */
interface WebhookFields {
  /** The topic whose messages are posted. Can not change afterwards. */
  topic: string;
  /**
   * The consumer group whose queue holds the messages. Can not change afterwards.
   * @default the name of the webhook
   */
  group?: string | undefined;
  /**
   * true enables a webhook that was disabled, false disables it.
   * @default as it is, and a new one is enabled
   */
  enabled?: boolean | undefined;
}

/** `PUT /v1/webhooks/{name}`, as a caller writes it. */
export interface WebhookInput extends WebhookFields, WebhookSettingsInput, PutInput {}
/** `PUT /v1/webhooks/{name}`, as parsed: defaults filled in. */
export interface WebhookRequest extends WebhookFields, WebhookSettings, PutOptions {}

/** `PUT /v1/webhooks/{name}`. */
export const WebhookRequest = named<WebhookRequest, WebhookInput>()(
  z
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
    .meta({ id: 'WebhookRequest' }),
);

/** That a webhook is disabled. */
export interface WebhookDisabled {
  /** In UTC milliseconds of the store's clock. */
  since: number;
  /** Why: an operator's word, or what its endpoint answered. */
  reason: string;
}

/** What a webhook's answer has beside its settings. */
interface WebhookStanding extends PutAnswer {
  /** Its name. */
  name: string;
  /** The topic whose messages are posted. */
  topic: string;
  /** The consumer group whose queue holds the messages. */
  group: string;
  /** Whether messages are posted. */
  state: 'active' | 'disabled';
  /** Since when and why it is disabled; its messages wait in their queue. */
  disabled?: WebhookDisabled | undefined;
}

/** A webhook as it is stored. */
export interface WebhookAnswer extends WebhookStanding, WebhookSettings {}
/** The same before defaults of the settings are filled in. */
export interface WebhookAnswerInput extends WebhookStanding, WebhookSettingsInput {}

/** A webhook as it is stored. */
export const WebhookAnswer = named<WebhookAnswer, WebhookAnswerInput>()(
  z
    .object({
      name: z.string(),
      topic: z.string(),
      group: z.string(),
      ...settings,
      state: z.enum(['active', 'disabled']),
      disabled: z
        .object({ since: z.int().describe('UTC milliseconds'), reason: z.string() })
        .optional()
        .describe('Since when and why; its messages wait in their queue'),
      ...PUT_ANSWER,
    })
    .meta({ id: 'WebhookAnswer' }),
);

/** All webhooks. */
export interface WebhookList {
  /** By name. */
  webhooks: WebhookAnswer[];
}

/** The same before defaults of the settings are filled in. */
export interface WebhookListInput {
  /** By name. */
  webhooks: WebhookAnswerInput[];
}

/** All webhooks. */
export const WebhookList = named<WebhookList, WebhookListInput>()(
  z.object({ webhooks: z.array(WebhookAnswer) }).meta({ id: 'WebhookList' }),
);

/** The answer to `DELETE /v1/webhooks/{name}`. */
export interface WebhookDeleted {
  /** Its name. */
  name: string;
  /** Queues in RabbitMQ that are left with what they hold; nothing comes into them any more. */
  queues: string[];
}

/** The answer to `DELETE /v1/webhooks/{name}`. */
export const WebhookDeleted = named<WebhookDeleted>()(
  z
    .object({
      name: z.string(),
      queues: z
        .array(z.string())
        .describe(
          'Queues in RabbitMQ that are left with what they hold. Nothing comes into them any more; delete them there, or create the webhook again and it goes on with them',
        ),
    })
    .meta({ id: 'WebhookDeleted' }),
);

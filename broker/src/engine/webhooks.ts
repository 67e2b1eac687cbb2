import {
  EscrowError,
  WEBHOOK_LIMITS,
  type WebhookAnswer,
  type WebhookDeleted,
  type WebhookRequest,
  type WebhookSettings,
} from '@escrowmq/protocol';
import { statedIn } from '../domain/signing-secrets.js';
import type { Webhook, WebhookSaved, WebhookStore } from '../domain/webhook.js';

/*
 * Creating, changing and deleting webhooks. What is stored is all that happens here; the instances
 * see it in their next pass and begin or end their subscriptions.
 *
 * Deleting goes in steps, each of which may be repeated: disable, so that every instance ends its
 * subscription; unbind, so that nothing comes into a queue that nobody empties; forget. A crash or a
 * RabbitMQ that is away leaves a webhook that is disabled, with its messages, and the call is
 * repeated. Queues are never deleted: what they hold was promised to somebody.
 */
export interface WebhooksDeps {
  store: WebhookStore;
  /** What is wrong with calling this URL, or `undefined`. */
  urlProblem(url: string): string | undefined;
  newSigningSecret(): string;
  /** Makes the subscriptions of this instance follow. */
  changed(): void;
  /** Ends the subscription here and unbinds the queue; resolves with the queues that are left. */
  release(webhook: Webhook): Promise<string[]>;
  /** Told why RabbitMQ could not be reached. */
  failed(what: string, error: unknown): void;
}

export interface Webhooks {
  /** Rejects with `WEBHOOK_URL_NOT_ALLOWED` or `WEBHOOK_CONFLICT`. */
  saveWebhook(
    name: string,
    request: WebhookRequest,
  ): Promise<{ created: boolean; answer: WebhookAnswer }>;
  /** Without the secret. */
  describeWebhook(name: string): Promise<WebhookAnswer | undefined>;
  listWebhooks(): Promise<WebhookAnswer[]>;
  /** Rejects with `WEBHOOK_NOT_FOUND` or `RABBITMQ_UNAVAILABLE`. */
  deleteWebhook(name: string): Promise<WebhookDeleted>;
}

const BEING_DELETED = 'being deleted';

function answerOf(webhook: Webhook): WebhookAnswer {
  const { name, topic, consumerGroup, settings, disabled, version } = webhook;
  return {
    name,
    topic,
    group: consumerGroup,
    ...settings,
    state: disabled === undefined ? 'active' : 'disabled',
    ...(disabled === undefined ? {} : { disabled }),
    version,
  };
}

function settingsOf(request: WebhookRequest): WebhookSettings {
  const { routingKeys, url, concurrency, timeoutMs, retry, giveUpAfterMs } = request;
  return { routingKeys, url, concurrency, timeoutMs, retry, giveUpAfterMs };
}

const conflict = (message: string) => new EscrowError('WEBHOOK_CONFLICT', message);

function refusalOf(name: string, saved: Exclude<WebhookSaved, { kind: 'saved' }>): EscrowError {
  if (saved.kind === 'groupTaken') {
    return conflict(
      `the webhook ${saved.by} has this group of the topic; two would each get a part of its messages: give ${name} another group`,
    );
  }
  const { topic, consumerGroup } = saved.webhook;
  return conflict(
    `the webhook ${name} is on topic ${topic} for group ${consumerGroup}, whose queue holds its messages; ` +
      'to move it, create another webhook and delete this one',
  );
}

export function createWebhooks(deps: WebhooksDeps): Webhooks {
  const { store } = deps;

  async function refuseOneTooMany(name: string): Promise<void> {
    const { webhooksMax } = WEBHOOK_LIMITS;
    const stored = await store.listWebhooks();
    if (stored.length < webhooksMax || stored.some((webhook) => webhook.name === name)) return;
    throw conflict(`there are ${webhooksMax} webhooks already; delete one before ${name}`);
  }

  return {
    async saveWebhook(name, request) {
      const problem = deps.urlProblem(request.url);
      if (problem !== undefined) {
        throw new EscrowError('WEBHOOK_URL_NOT_ALLOWED', `${request.url}: ${problem}`);
      }
      await refuseOneTooMany(name);
      const newSecret = request.newSecret ?? deps.newSigningSecret();
      const saved = await store.saveWebhook({
        name,
        topic: request.topic,
        consumerGroup: request.group ?? name,
        settings: settingsOf(request),
        version: request.version,
        enabled: request.enabled,
        newSecret,
        rotate: request.rotateSecret,
        signingSecrets: statedIn(request),
      });
      if (saved.kind !== 'saved') throw refusalOf(name, saved);
      deps.changed();
      const { webhook, created, secretMade, applied } = saved;
      return {
        created,
        answer: {
          ...answerOf(webhook),
          applied,
          ...(secretMade ? { signingSecret: newSecret } : {}),
        },
      };
    },
    async describeWebhook(name) {
      const webhook = await store.findWebhook(name);
      return webhook === undefined ? undefined : answerOf(webhook);
    },
    async listWebhooks() {
      return (await store.listWebhooks()).map(answerOf);
    },
    async deleteWebhook(name) {
      const webhook = await store.findWebhook(name);
      if (webhook === undefined) {
        throw new EscrowError('WEBHOOK_NOT_FOUND', `there is no webhook ${name}`);
      }
      const { revision } = webhook;
      // False when it is disabled already, or somebody changes it at this very moment.
      await store.disableWebhook({ name, revision, reason: BEING_DELETED });
      let queues: string[];
      try {
        queues = await deps.release(webhook);
      } catch (error) {
        deps.failed(`unbinding the webhook ${name}`, error);
        throw new EscrowError(
          'RABBITMQ_UNAVAILABLE',
          `the webhook ${name} is disabled, and stays until RabbitMQ can unbind its queue; delete it again`,
        );
      }
      await store.deleteWebhook(name);
      deps.changed();
      return { name, queues };
    },
  };
}

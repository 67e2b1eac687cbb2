import {
  EscrowError,
  parse,
  WebhookAnswer,
  WebhookDeleted,
  WebhookList,
  WebhookName,
  WebhookRequest,
} from '@escrowmq/protocol';
import { z } from 'zod';
import type { HttpDeps } from './deps.js';
import type { Call, Route } from './route.js';

type WebhookDeps = Pick<
  HttpDeps,
  'saveWebhook' | 'describeWebhook' | 'listWebhooks' | 'deleteWebhook'
>;

const Params = z.object({ name: WebhookName });

const nameIn = (call: Call): string =>
  parse(WebhookName, call.params.name, 'the webhook in the path');

/** Telling HTTP endpoints of messages. Operators only: a webhook may read any topic. */
export function webhookRoutes(deps: WebhookDeps): Route[] {
  const url = '/v1/webhooks/:name' as const;
  const common = { access: ['operator'], url, params: Params } as const;
  return [
    {
      ...common,
      method: 'PUT',
      operationId: 'saveWebhook',
      summary: 'Create or change a webhook',
      description:
        "Sets what it is told of and how, as a whole. Topic and group stay as they were when it was created. Calls are signed with `signingSecrets`, which are the receiver's own and never answered. Without any one is made and answered when the call creates the webhook or is asked to rotate it, and never again; `newSecret` gives that one, so that the call may be repeated.",
      body: WebhookRequest,
      answers: {
        200: { description: 'Changed, or as it was: see applied', schema: WebhookAnswer },
        201: { description: 'Created', schema: WebhookAnswer },
      },
      problems: [
        'INVALID_NAME',
        'WEBHOOK_URL_NOT_ALLOWED',
        'WEBHOOK_CONFLICT',
        'STORE_UNAVAILABLE',
      ],
      async handle(call) {
        const name = nameIn(call);
        const request = parse(WebhookRequest, call.body, 'the request');
        const { created, answer } = await deps.saveWebhook(name, request);
        return { status: created ? 201 : 200, body: answer };
      },
    },
    {
      ...common,
      method: 'GET',
      operationId: 'viewWebhook',
      summary: 'Look at a webhook',
      description:
        'Its settings, and whether it is disabled; the signing secret is not shown. What became of its messages is in the metric escrow_webhook_calls_total.',
      answers: { 200: { description: 'The webhook', schema: WebhookAnswer } },
      problems: ['INVALID_NAME', 'WEBHOOK_NOT_FOUND', 'STORE_UNAVAILABLE'],
      async handle(call) {
        const name = nameIn(call);
        const found = await deps.describeWebhook(name);
        if (found === undefined) {
          throw new EscrowError(
            'WEBHOOK_NOT_FOUND',
            `there is no webhook ${name}; PUT /v1/webhooks/${name} creates it`,
          );
        }
        return { body: found };
      },
    },
    {
      ...common,
      method: 'DELETE',
      operationId: 'deleteWebhook',
      summary: 'Delete a webhook',
      description:
        'Ends its calls and unbinds its queue. The queues stay with what they hold, and the answer names them.',
      answers: { 200: { description: 'Deleted', schema: WebhookDeleted } },
      problems: ['INVALID_NAME', 'WEBHOOK_NOT_FOUND', 'RABBITMQ_UNAVAILABLE', 'STORE_UNAVAILABLE'],
      async handle(call) {
        return { body: await deps.deleteWebhook(nameIn(call)) };
      },
    },
    {
      method: 'GET',
      url: '/v1/webhooks',
      access: ['operator'],
      operationId: 'listWebhooks',
      summary: 'List the webhooks',
      description: 'All of them, in order of their names.',
      answers: { 200: { description: 'The webhooks', schema: WebhookList } },
      problems: ['STORE_UNAVAILABLE'],
      async handle() {
        return { body: { webhooks: await deps.listWebhooks() } };
      },
    },
  ];
}

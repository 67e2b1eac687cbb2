import { WEBHOOK_LIMITS, WebhookRequest } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import type { Webhook, WebhookSaved, WebhookToSave } from '../../broker/src/domain/webhook.js';
import { createWebhooks } from '../../broker/src/engine/webhooks.js';
import { storedWebhook } from '../support/webhook-fakes.js';

const SECRET = 'whsec_new';

function webhooks(initially: Webhook[] = []) {
  const world = {
    saved: [] as WebhookToSave[],
    /** In the order in which they happened. */
    steps: [] as string[],
    answer: undefined as WebhookSaved | undefined,
    releasing: Promise.resolve(['escrow:orders:billing']),
    failures: [] as unknown[],
  };
  const made = createWebhooks({
    store: {
      async saveWebhook(webhook) {
        world.saved.push(webhook);
        const { signingSecrets: _, ...rest } = webhook;
        const stored = storedWebhook({ ...rest, version: webhook.version ?? 0 });
        return (
          world.answer ?? {
            kind: 'saved',
            webhook: stored,
            created: true,
            secretMade: true,
            applied: true,
          }
        );
      },
      findWebhook: async (name) => initially.find((webhook) => webhook.name === name),
      listWebhooks: async () => initially,
      async disableWebhook({ revision }) {
        world.steps.push(`disable ${revision}`);
        return true;
      },
      async deleteWebhook() {
        world.steps.push('delete');
        return true;
      },
    },
    urlProblem: (url) => (url.includes('forbidden') ? 'its host is not allowed' : undefined),
    newSigningSecret: () => SECRET,
    changed: () => world.steps.push('changed'),
    release: async () => {
      const queues = await world.releasing;
      world.steps.push('release');
      return queues;
    },
    failed: (_what, error) => world.failures.push(error),
  });
  return { ...made, world };
}

const request = (changes: object = {}) =>
  WebhookRequest.parse({ topic: 'orders', url: 'http://127.0.0.1:1/hook', ...changes });

test('a new webhook is told its secret, and its group is its name unless it says another', async () => {
  const { saveWebhook, world } = webhooks();
  const { created, answer } = await saveWebhook('billing', request({ version: 3 }));
  expect(created).toBe(true);
  expect(answer).toMatchObject({
    name: 'billing',
    topic: 'orders',
    group: 'billing',
    concurrency: 4,
    timeoutMs: 10_000,
    state: 'active',
    version: 3,
    applied: true,
    signingSecret: SECRET,
  });
  await saveWebhook('billing', request({ group: 'finance', enabled: false, rotateSecret: true }));
  expect(world.saved).toMatchObject([
    { consumerGroup: 'billing', rotate: false, version: 3 },
    { consumerGroup: 'finance', rotate: true, enabled: false },
  ]);
  expect(world.steps).toEqual(['changed', 'changed']);
});

test('a secret that was not taken is not told', async () => {
  const { saveWebhook, world } = webhooks();
  const webhook = storedWebhook({ disabled: { since: 5, reason: 'HTTP 410' } });
  world.answer = { kind: 'saved', webhook, created: false, secretMade: false, applied: false };
  const { answer } = await saveWebhook('billing', request());
  expect(answer).toMatchObject({ state: 'disabled', disabled: { since: 5 }, applied: false });
  expect(JSON.stringify(answer)).not.toContain('whsec_');
});

test('nobody is shown a secret later', async () => {
  const { describeWebhook, listWebhooks } = webhooks([storedWebhook()]);
  const shown = [await describeWebhook('billing'), ...(await listWebhooks())];
  expect(shown).toHaveLength(2);
  expect(JSON.stringify(shown)).not.toContain('whsec_');
  expect(await describeWebhook('nobody')).toBeUndefined();
});

test('a URL that may not be called is refused before anything is stored', async () => {
  const { saveWebhook, world } = webhooks();
  await expect(
    saveWebhook('billing', request({ url: 'http://forbidden.example/' })),
  ).rejects.toMatchObject({
    code: 'WEBHOOK_URL_NOT_ALLOWED',
    message: 'http://forbidden.example/: its host is not allowed',
  });
  expect(world.saved).toEqual([]);
});

test('what contradicts the store is refused, and says what stands', async () => {
  const { saveWebhook, world } = webhooks();
  world.answer = { kind: 'different', webhook: storedWebhook({ topic: 'invoices' }) };
  await expect(saveWebhook('billing', request())).rejects.toMatchObject({
    code: 'WEBHOOK_CONFLICT',
    message: expect.stringContaining('topic invoices for group billing'),
  });
  world.answer = { kind: 'groupTaken', by: 'audit' };
  await expect(saveWebhook('billing', request())).rejects.toMatchObject({
    code: 'WEBHOOK_CONFLICT',
    message: expect.stringContaining('webhook audit has this group'),
  });
  expect(world.steps).toEqual([]);
});

test('there are so many webhooks and no more, and each of them may be changed', async () => {
  const names = Array.from({ length: WEBHOOK_LIMITS.webhooksMax }, (_, number) => `w${number}`);
  const { saveWebhook } = webhooks(names.map((name) => storedWebhook({ name })));
  await saveWebhook('w7', request());
  await expect(saveWebhook('one-more', request())).rejects.toMatchObject({
    code: 'WEBHOOK_CONFLICT',
  });
});

test('deleting disables first, then unbinds, and forgets last', async () => {
  const { deleteWebhook, world } = webhooks([storedWebhook({ revision: 7 })]);
  expect(await deleteWebhook('billing')).toEqual({
    name: 'billing',
    queues: ['escrow:orders:billing'],
  });
  expect(world.steps).toEqual(['disable 7', 'release', 'delete', 'changed']);
});

test('what RabbitMQ could not unbind is not forgotten', async () => {
  const { deleteWebhook, world } = webhooks([storedWebhook()]);
  world.releasing = Promise.reject(new Error('amqp://user:secret@host'));
  await expect(deleteWebhook('billing')).rejects.toMatchObject({
    code: 'RABBITMQ_UNAVAILABLE',
    message: expect.not.stringContaining('secret'),
  });
  expect(world.steps).toEqual(['disable 1']);
  expect(world.failures).toHaveLength(1);
});

test('one that is not there can not be deleted', async () => {
  await expect(webhooks().deleteWebhook('nobody')).rejects.toMatchObject({
    code: 'WEBHOOK_NOT_FOUND',
  });
});

test.each<[string, object]>([
  ['no URL', { url: undefined }],
  ['a URL with a password', { url: 'http://a:b@c/' }],
  ['no routing key', { routingKeys: [] }],
  ['shrinking pauses', { retry: { delaysMs: [2, 1] } }],
  ['no pauses', { retry: { delaysMs: [] } }],
  ['a pause of more than a day', { retry: { delaysMs: [86_400_001] } }],
  ['too many calls at a time', { concurrency: 65 }],
  ['a field that nobody knows', { urls: [] }],
])('%s is no webhook', (_what, changes) => {
  const body = { topic: 'orders', url: 'http://127.0.0.1:1/hook', ...changes };
  expect(WebhookRequest.safeParse(body).success).toBe(false);
});

test('the default pauses last about a day, in few distinct ones', () => {
  const { delaysMs } = request().retry;
  const hours = delaysMs.reduce((sum, delayMs) => sum + delayMs, 0) / 3_600_000;
  expect(hours).toBeGreaterThan(22);
  expect(hours).toBeLessThan(26);
  expect(new Set(delaysMs).size).toBe(6);
});

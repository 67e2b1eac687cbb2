import { expect, test } from '@jest/globals';
import type { Webhook } from '../../broker/src/domain/webhook.js';
import { type Running, reconcile } from '../../broker/src/notify/reconcile.js';
import { storedWebhook } from '../support/webhook-fakes.js';

const running = (...webhooks: (Webhook | [Webhook, 'ending'])[]): Map<string, Running> =>
  new Map(
    webhooks.map((each) => {
      const [webhook, ending] = Array.isArray(each) ? each : [each];
      return [webhook.name, { webhook, ending: ending !== undefined }];
    }),
  );
const disabled = { since: 1, reason: 'HTTP 410' };
const end = (deleted: boolean) => ({ kind: 'end', name: 'billing', deleted });

test('what is stored and does not run is started', () => {
  const audit = storedWebhook({ name: 'audit' });
  const webhook = storedWebhook();
  expect(reconcile([audit, webhook], running(audit))).toEqual([
    { kind: 'refresh', webhook: audit },
    { kind: 'start', webhook },
  ]);
});

test('a disabled one is not started, and ends where it runs', () => {
  const webhook = storedWebhook({ disabled });
  expect(reconcile([webhook], running())).toEqual([]);
  expect(reconcile([webhook], running(storedWebhook()))).toEqual([end(false)]);
});

test('a deleted one ends, and its queue is unbound', () => {
  expect(reconcile([], running(storedWebhook()))).toEqual([end(true)]);
});

test.each<[string, Parameters<typeof storedWebhook>[0]]>([
  ['another URL', { settings: { url: 'http://127.0.0.1:2/' } }],
  ['other routing keys', { settings: { routingKeys: ['paid'] } }],
  ['another concurrency', { settings: { concurrency: 5 } }],
  ['other pauses', { settings: { retry: { delaysMs: [1] } } }],
  ['another limit of age', { settings: { giveUpAfterMs: 5_000 } }],
  ['another topic, deleted and made again', { topic: 'invoices' }],
  ['another group, deleted and made again', { consumerGroup: 'other' }],
])('with %s it ends first, and is started by a later pass', (_what, changes) => {
  const webhook = storedWebhook({ ...changes, revision: 2 });
  expect(reconcile([webhook], running(storedWebhook()))).toEqual([end(false)]);
  expect(reconcile([webhook], running())).toEqual([{ kind: 'start', webhook }]);
});

test('other secrets change what runs without ending it', () => {
  const webhook = storedWebhook({ signingSecrets: ['whsec_BBBB', 'whsec_AAAA'], revision: 2 });
  expect(reconcile([webhook], running(storedWebhook()))).toEqual([{ kind: 'refresh', webhook }]);
});

test('what is ending is left alone, whatever is stored', () => {
  const here = running([storedWebhook(), 'ending']);
  expect(reconcile([storedWebhook()], here)).toEqual([]);
  expect(reconcile([], here)).toEqual([]);
});

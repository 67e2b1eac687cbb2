import { WebhookSettings } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { Webhook, WebhookToSave } from '../../broker/src/domain/webhook.js';
import type { OpenStore } from '../support/store-fixtures.js';

const settings = (changes: object = {}) =>
  WebhookSettings.parse({ url: 'http://127.0.0.1:1/hook', ...changes });

const webhook = (changes: Partial<WebhookToSave> = {}): WebhookToSave => ({
  name: 'billing',
  topic: 'orders',
  consumerGroup: 'billing',
  settings: settings(),
  newSecret: 'whsec_1',
  rotate: false,
  ...changes,
});

export function webhooksContract(opened: () => OpenStore): void {
  describe('webhooks', () => {
    const save = (changes: Partial<WebhookToSave> = {}) =>
      opened().store.saveWebhook(webhook(changes));
    const stored = async (name = 'billing'): Promise<Webhook> => {
      const found = await opened().store.findWebhook(name);
      if (found === undefined) throw new Error(`there is no webhook ${name}`);
      return found;
    };

    test('a webhook is created with its secret, and changed without a new one', async () => {
      const { store } = opened();
      expect(await store.findWebhook('billing')).toBeUndefined();
      expect(await store.listWebhooks()).toEqual([]);
      const before = await store.now();
      const first = await save();
      expect(first).toEqual({
        kind: 'saved',
        created: true,
        secretMade: true,
        applied: true,
        webhook: {
          name: 'billing',
          topic: 'orders',
          consumerGroup: 'billing',
          settings: settings(),
          formerRoutingKeys: [],
          version: 0,
          revision: 1,
          signingSecrets: ['whsec_1'],
          enabledAt: expect.any(Number),
        },
      });
      expect((await stored()).enabledAt).toBeGreaterThanOrEqual(before);

      const changed = settings({ url: 'https://ü.example/?x="1"', routingKeys: ['a.*', 'b'] });
      expect(await save({ settings: changed, newSecret: 'whsec_2' })).toMatchObject({
        created: false,
        secretMade: false,
        applied: true,
        webhook: { settings: changed, revision: 2, signingSecrets: ['whsec_1'] },
      });
      await save({ name: 'audit', consumerGroup: 'audit' });
      const names = (await store.listWebhooks()).map(({ name }) => name);
      expect(names).toEqual(['audit', 'billing']);
    });

    test('the longest settings there are fit', async () => {
      const key = (number: number) => `${number}.`.padEnd(255, '"');
      const keys = (from: number) => Array.from({ length: 100 }, (_, at) => key(from + at));
      await save({ settings: settings({ routingKeys: keys(100) }) });
      await save({ settings: settings({ routingKeys: keys(500) }) });
      const { settings: now, formerRoutingKeys } = await stored();
      expect(now.routingKeys).toEqual(keys(500));
      expect(formerRoutingKeys).toEqual(keys(100));
    });

    test('routing keys that it has no more are remembered until it has them again', async () => {
      await save({ settings: settings({ routingKeys: ['a', 'b'] }) });
      await save({ settings: settings({ routingKeys: ['b', 'c'] }) });
      expect((await stored()).formerRoutingKeys).toEqual(['a']);
      await save({ settings: settings({ routingKeys: ['a'] }) });
      expect((await stored()).formerRoutingKeys).toEqual(['b', 'c']);
    });

    test('after a rotation both secrets sign for a day', async () => {
      const { database } = opened();
      await save();
      expect(await save({ newSecret: 'whsec_2', rotate: true })).toMatchObject({
        secretMade: true,
        webhook: { signingSecrets: ['whsec_2', 'whsec_1'] },
      });
      const ageBy = (ms: number) =>
        database.run('update escrow_webhook set rotated_at = rotated_at - ?', [ms]);
      await ageBy(24 * 60 * 60 * 1000 - 60_000);
      expect((await stored()).signingSecrets).toEqual(['whsec_2', 'whsec_1']);
      await ageBy(60_000);
      expect((await stored()).signingSecrets).toEqual(['whsec_2']);
    });

    test('topic and group stay as they were', async () => {
      await save();
      for (const changes of [{ topic: 'invoices' }, { consumerGroup: 'other' }]) {
        const refused = await save({ ...changes, newSecret: 'whsec_2', rotate: true });
        expect(refused).toEqual({ kind: 'different', webhook: await stored() });
      }
      expect(await stored()).toMatchObject({ revision: 1, signingSecrets: ['whsec_1'] });
    });

    test('a group of a topic has one webhook', async () => {
      await save();
      const second = await save({ name: 'second' });
      expect(second).toEqual({ kind: 'groupTaken', by: 'billing' });
      expect(await save({ name: 'second', topic: 'invoices' })).toMatchObject({ created: true });
    });

    test('the highest version stands: a lower one changes nothing and rotates nothing', async () => {
      await save({ version: 7 });
      const seven = await stored();
      const older = await save({
        version: 6,
        settings: settings({ concurrency: 9 }),
        enabled: false,
        newSecret: 'whsec_6',
        rotate: true,
      });
      expect(older).toMatchObject({ applied: false, secretMade: false, webhook: seven });
      expect(await stored()).toEqual(seven);
      const uncounted = settings({ concurrency: 2 });
      expect(await save({ settings: uncounted })).toMatchObject({
        applied: true,
        webhook: { version: 7, settings: uncounted },
      });
      expect(await save({ version: 8 })).toMatchObject({ applied: true, webhook: { version: 8 } });
    });

    test('of many saved at once one is created, and no secret is told that does not hold', async () => {
      const results = await Promise.all(
        Array.from({ length: 8 }, (_, number) =>
          save({ newSecret: `whsec_${number}`, rotate: number > 5 }),
        ),
      );
      const saved = results.filter((result) => result.kind === 'saved');
      expect(saved).toHaveLength(8);
      expect(saved.filter(({ created }) => created)).toHaveLength(1);
      const { signingSecrets, revision } = await stored();
      expect(revision).toBe(8);
      const made = saved.flatMap(({ secretMade }, number) =>
        secretMade ? [`whsec_${number}`] : [],
      );
      expect(made).toEqual(expect.arrayContaining(signingSecrets));
    });

    test('a webhook is disabled by what was known of it, and once', async () => {
      const { store } = opened();
      await save();
      const known = await stored();
      await save({ settings: settings({ url: 'http://127.0.0.1:1/moved' }) });
      const late = { name: 'billing', revision: known.revision, reason: 'HTTP 410' };
      expect(await store.disableWebhook(late)).toBe(false);
      expect(await stored()).not.toHaveProperty('disabled');

      const now = { ...late, revision: (await stored()).revision };
      expect(await store.disableWebhook(now)).toBe(true);
      expect(await store.disableWebhook(now)).toBe(false);
      expect(await stored()).toMatchObject({
        disabled: { reason: 'HTTP 410', since: expect.any(Number) },
        revision: now.revision + 1,
      });
    });

    test('settings leave it disabled, and enabling counts its time anew', async () => {
      const { store, database } = opened();
      await save();
      await database.run('update escrow_webhook set enabled_at = 5');
      await store.disableWebhook({ name: 'billing', revision: 1, reason: 'HTTP 410' });
      await save({ settings: settings({ concurrency: 9 }) });
      expect(await stored()).toMatchObject({ disabled: { reason: 'HTTP 410' }, enabledAt: 5 });
      await save({ enabled: true });
      const enabled = await stored();
      expect(enabled).not.toHaveProperty('disabled');
      expect(enabled.enabledAt).toBeGreaterThan(5);
      await save({ enabled: true });
      expect((await stored()).enabledAt).toBe(enabled.enabledAt);
      await save({ enabled: false });
      expect((await stored()).disabled?.reason).toBe('disabled by an operator');
    });

    test('one may be created disabled', async () => {
      await save({ enabled: false });
      expect(await stored()).toMatchObject({ disabled: { reason: 'disabled by an operator' } });
    });

    test('a deleted one is gone, with its name and its group', async () => {
      const { store } = opened();
      await save();
      expect(await store.deleteWebhook('billing')).toBe(true);
      expect(await store.deleteWebhook('billing')).toBe(false);
      expect(await store.findWebhook('billing')).toBeUndefined();
      expect(await save({ newSecret: 'whsec_9' })).toMatchObject({
        created: true,
        webhook: { signingSecrets: ['whsec_9'] },
      });
    });
  });
}

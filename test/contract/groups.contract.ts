import { CheckPolicy } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { GroupToSave } from '../../broker/src/domain/ports.js';
import type { OpenStore } from '../support/store-fixtures.js';

const group = (changes: Partial<GroupToSave> = {}): GroupToSave => ({
  name: 'accounts',
  checkUrls: ['http://127.0.0.1:1/check'],
  compensationUrls: [],
  checkPolicy: CheckPolicy.parse({}),
  newSecret: 'whsec_1',
  rotate: false,
  ...changes,
});

export function groupsContract(opened: () => OpenStore): void {
  describe('producer groups', () => {
    test('a group is created with its secret, and changed without a new one', async () => {
      const { store } = opened();
      expect(await store.findGroup('accounts')).toBeUndefined();
      const { newSecret, rotate, ...created } = group();
      const first = { ...created, version: 0, signingSecrets: ['whsec_1'] };
      const saved = { secretMade: true, applied: true };
      expect(await store.saveGroup(group())).toEqual({ group: first, ...saved });
      expect(await store.findGroup('accounts')).toEqual(first);

      const changes = {
        checkUrls: ['https://a.example/ü?x="1"', 'https://b.example/'],
        compensationUrls: ['https://c.example/'],
        checkPolicy: CheckPolicy.parse({ unknownMax: 3 }),
      };
      const second = { ...first, ...changes };
      const changed = await store.saveGroup(group({ ...changes, newSecret: 'whsec_2' }));
      expect(changed).toEqual({ group: second, secretMade: false, applied: true });
      expect(await store.findGroup('accounts')).toEqual(second);
      expect(await store.findGroup('Accounts')).toBeUndefined();
    });

    test('after a rotation both secrets sign for a day', async () => {
      const { store, database } = opened();
      await store.saveGroup(group());
      const rotated = await store.saveGroup(group({ newSecret: 'whsec_2', rotate: true }));
      expect(rotated).toMatchObject({ secretMade: true });
      const secrets = async () => (await store.findGroup('accounts'))?.signingSecrets;
      expect(rotated.group.signingSecrets).toEqual(['whsec_2', 'whsec_1']);
      expect(await secrets()).toEqual(['whsec_2', 'whsec_1']);

      const ageBy = (ms: number) =>
        database.run('update escrow_producer_group set rotated_at = rotated_at - ?', [ms]);
      await ageBy(24 * 60 * 60 * 1000 - 60_000);
      expect(await secrets()).toEqual(['whsec_2', 'whsec_1']);
      await ageBy(60_000);
      expect(await secrets()).toEqual(['whsec_2']);
    });

    test('N03: stated secrets are taken, compared and rotated, and what was in force signs on', async () => {
      const { store, database } = opened();
      const secrets = async () => (await store.findGroup('accounts'))?.signingSecrets;
      const state = async (...signingSecrets: [string, string?]) => {
        const saved = await store.saveGroup(group({ newSecret: 'whsec_unused', signingSecrets }));
        expect(saved).toMatchObject({ secretMade: false, applied: true });
        expect(await secrets()).toEqual(saved.group.signingSecrets);
        return saved.group.signingSecrets;
      };
      const ageByDays = (days: number) =>
        database.run('update escrow_producer_group set rotated_at = rotated_at - ?', [
          days * 24 * 60 * 60 * 1000,
        ]);
      expect(await state('whsec_a', 'whsec_0')).toEqual(['whsec_a', 'whsec_0']);
      expect(await state('whsec_a')).toEqual(['whsec_a', 'whsec_0']);
      await ageByDays(1);
      expect(await state('whsec_a')).toEqual(['whsec_a']);
      // Both sign for as long as both are stated.
      expect(await state('whsec_b', 'whsec_a')).toEqual(['whsec_b', 'whsec_a']);
      await ageByDays(30);
      expect(await state('whsec_b', 'whsec_a')).toEqual(['whsec_b', 'whsec_a']);
      expect(await state('whsec_b')).toEqual(['whsec_b', 'whsec_a']);
      await ageByDays(1);
      expect(await secrets()).toEqual(['whsec_b']);
      // Another service's: what the running instances verify with signs for another day.
      expect(await state('whsec_c')).toEqual(['whsec_c', 'whsec_b']);
      // One that sends none of its own, or one to be made, changes nothing.
      const other = await store.saveGroup(group({ newSecret: 'whsec_made' }));
      expect(other).toMatchObject({ secretMade: false });
      expect(await secrets()).toEqual(['whsec_c', 'whsec_b']);
    });

    test('U12: a rotation that is repeated with its secret rotates once', async () => {
      const { store } = opened();
      await store.saveGroup(group());
      const rotation = group({ newSecret: 'whsec_2', rotate: true });
      for (const _ of [1, 2]) {
        const saved = await store.saveGroup(rotation);
        expect(saved).toMatchObject({ secretMade: true });
        expect(saved.group.signingSecrets).toEqual(['whsec_2', 'whsec_1']);
      }
    });

    test('a new group asked to rotate has one secret', async () => {
      const saved = await opened().store.saveGroup(group({ rotate: true }));
      expect(saved).toMatchObject({ secretMade: true, group: { signingSecrets: ['whsec_1'] } });
    });

    test('the highest version stands: a lower one changes nothing and rotates nothing', async () => {
      const { store } = opened();
      const version = (number: number | undefined, changes: Partial<GroupToSave> = {}) => ({
        ...group({ checkUrls: [`http://v${number ?? 'none'}/`], newSecret: `whsec_${number}` }),
        version: number,
        ...changes,
      });
      const seven = await store.saveGroup(version(7));
      expect(seven).toMatchObject({ applied: true, secretMade: true, group: { version: 7 } });
      const older = await store.saveGroup(version(6, { rotate: true }));
      expect(older).toEqual({ group: seven.group, secretMade: false, applied: false });
      expect(await store.findGroup('accounts')).toEqual(seven.group);

      const again = await store.saveGroup(version(7, { checkUrls: ['http://again/'] }));
      expect(again).toMatchObject({ applied: true, group: { checkUrls: ['http://again/'] } });
      const newest = Number.MAX_SAFE_INTEGER;
      expect(await store.saveGroup(version(newest, { rotate: true }))).toMatchObject({
        applied: true,
        secretMade: true,
        group: { version: newest, signingSecrets: [`whsec_${newest}`, 'whsec_7'] },
      });
      // Whoever does not count is applied, and the version stays for those who do.
      expect(await store.saveGroup(version(undefined))).toMatchObject({
        applied: true,
        group: { version: newest, checkUrls: ['http://vnone/'] },
      });
      expect(await store.saveGroup(version(8))).toMatchObject({ applied: false });
    });

    test('of versions registered at once the highest stands, in whatever order they come', async () => {
      const { store } = opened();
      const versions = [3, 9, 1, 7, 9, 2, 8, 5];
      await Promise.all(
        versions.map((number) =>
          store.saveGroup({ ...group({ checkUrls: [`http://v${number}/`] }), version: number }),
        ),
      );
      expect(await store.findGroup('accounts')).toMatchObject({
        version: 9,
        checkUrls: ['http://v9/'],
      });
    });

    test('of concurrent creations one makes the secret, and all see it', async () => {
      const { store } = opened();
      const tries = Array.from({ length: 8 }, (_, number) =>
        store.saveGroup(group({ newSecret: `whsec_${number}` })),
      );
      const results = await Promise.all(tries);
      const made = results.flatMap(({ secretMade }, number) => (secretMade ? [number] : []));
      expect(made).toHaveLength(1);
      for (const result of results) {
        expect(result.group.signingSecrets).toEqual([`whsec_${made[0]}`]);
      }
    });

    test('of two concurrent rotations none is told a secret that does not hold', async () => {
      const { store } = opened();
      await store.saveGroup(group({ newSecret: 'whsec_old' }));
      const results = await Promise.all(
        [0, 1].map((number) =>
          store.saveGroup(group({ newSecret: `whsec_${number}`, rotate: true })),
        ),
      );
      const secrets = (await store.findGroup('accounts'))?.signingSecrets ?? [];
      results.forEach(({ secretMade }, number) => {
        if (secretMade) expect(secrets).toContain(`whsec_${number}`);
      });
      expect(results.some(({ secretMade }) => secretMade)).toBe(true);
    });
  });
}

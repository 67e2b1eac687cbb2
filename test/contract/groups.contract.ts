import { CheckPolicy } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { GroupToSave } from '../../broker/src/domain/ports.js';
import type { OpenStore } from '../support/store-fixtures.js';

const group = (changes: Partial<GroupToSave> = {}): GroupToSave => ({
  name: 'accounts',
  checkUrls: ['http://127.0.0.1:1/check'],
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
      const first = { ...created, signingSecrets: ['whsec_1'] };
      expect(await store.saveGroup(group())).toEqual({ group: first, secretMade: true });
      expect(await store.findGroup('accounts')).toEqual(first);

      const changes = {
        checkUrls: ['https://a.example/ü?x="1"', 'https://b.example/'],
        checkPolicy: CheckPolicy.parse({ unknownMax: 3 }),
      };
      const second = { ...first, ...changes };
      const saved = await store.saveGroup(group({ ...changes, newSecret: 'whsec_2' }));
      expect(saved).toEqual({ group: second, secretMade: false });
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

    test('a new group asked to rotate has one secret', async () => {
      const saved = await opened().store.saveGroup(group({ rotate: true }));
      expect(saved).toMatchObject({ secretMade: true, group: { signingSecrets: ['whsec_1'] } });
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

import { ProducerGroupRequest } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { nextSecrets } from '../../broker/src/domain/signing-secrets.js';

describe('N03: what stated secrets make of stored ones', () => {
  const inForce = undefined;
  const rotated = { current: 'new', previous: 'old', previousStays: true };
  const replaced = { current: 'new', previous: 'old', previousStays: false };

  test.each([
    ['the same again', { current: 'old' }, ['old'], inForce],
    [
      'the same again, while another still signs',
      { current: 'new', previous: 'old' },
      ['new'],
      inForce,
    ],
    ['a rotation', { current: 'old' }, ['new', 'old'], rotated],
    ['a rotation again', { current: 'new', previous: 'old' }, ['new', 'old'], inForce],
    ['a rotation when the old one has ended', { current: 'new' }, ['new', 'old'], rotated],
    ['another without the old one, which goes on signing', { current: 'old' }, ['new'], replaced],
    ['two others: what is in force goes on signing', { current: 'old' }, ['new', 'x'], replaced],
    ['two others again', { current: 'new', previous: 'old' }, ['new', 'x'], inForce],
    ['an old instance that starts late', { current: 'old', previous: 'new' }, ['new'], replaced],
  ] as const)('%s', (_, stored, stated, next) => {
    expect(nextSecrets(stored, stated)).toEqual(next);
  });
});

describe('N03: a secret of the service', () => {
  const secretOf = (bytes: number) => `whsec_${Buffer.alloc(bytes, 7).toString('base64')}`;
  const taken = (signingSecrets: unknown, more: object = {}) =>
    ProducerGroupRequest.safeParse({ checkUrls: [], signingSecrets, ...more });

  test.each([24, 25, 32, 64])('of %d bytes is taken', (bytes) => {
    expect(taken([secretOf(bytes)]).success).toBe(true);
  });

  test.each([
    secretOf(23),
    secretOf(65),
    secretOf(32).slice('whsec_'.length),
    `${secretOf(32)}\n`,
    `whsec_${'ä'.repeat(40)}`,
    'hunter2-hunter2-hunter2-hunter2-hunter2',
  ])(
    'that is too short, too long or no base64 is refused, without being repeated: %s',
    (secret) => {
      const parsed = taken([secret]);
      expect(parsed.success).toBe(false);
      expect(JSON.stringify(parsed.error)).toContain('must be whsec_ and the base64 of 24 to 64');
      expect(JSON.stringify(parsed.error)).not.toContain(secret.trim());
    },
  );

  test('goes without the two other ways to set one', () => {
    const own = secretOf(32);
    expect(taken([own], { rotateSecret: true }).success).toBe(false);
    expect(taken([own], { newSecret: own }).success).toBe(false);
    expect(taken([own, own, own]).success).toBe(false);
    expect(taken([]).success).toBe(false);
  });
});

import { expect, test } from '@jest/globals';
import { isOlder, tooOldFor } from '../../broker/src/domain/instances.js';

test.each([
  ['0.2.0', '0.2.0', false],
  ['0.2.1', '0.2.0', false],
  ['0.10.0', '0.9.9', false],
  ['1.0.0', '0.99.99', false],
  ['0.1.9', '0.2.0', true],
  ['0.9.9', '0.10.0', true],
  ['0.2.0-rc.1', '0.2.0', false],
  ['', '0.2.0', true],
  ['latest', '0.2.0', true],
])('%j is older than %s: %p', (version, needed, older) => {
  expect(isOlder(version, needed)).toBe(older);
});

test('what some living broker does not know is refused, with its host and version', () => {
  const old = { version: '0.2.0', host: 'a' };
  const recent = { version: '0.3.1', host: 'b' };
  expect(tooOldFor('closing', '0.3.0', [])).toBeUndefined();
  expect(tooOldFor('closing', '0.3.0', [recent])).toBeUndefined();
  expect(tooOldFor('closing', '0.3.0', [recent, old, old])).toBe(
    'closing needs every broker of this store to be 0.3.0 or newer, and there lives 0.2.0 on a: stop or upgrade that one; one that was killed counts as living for 35 s',
  );
});

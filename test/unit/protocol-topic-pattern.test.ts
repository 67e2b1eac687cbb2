import { matchesTopicPattern } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';

test.each([
  ['#', '', true],
  ['#', 'a.b', true],
  ['', '', true],
  ['', 'a', false],
  ['*', '', false],
  ['*', 'a', true],
  ['*', 'a.b', false],
  ['a', 'a', true],
  ['a', 'A', false],
  ['a.*', 'a.b', true],
  ['a.*', 'a', false],
  ['a.*', 'a.', true],
  ['a.#', 'a', true],
  ['a.#', 'a.b.c', true],
  ['#.b', 'b', true],
  ['#.b', 'a.b.b', true],
  ['#.b', 'a.b.c', false],
  ['a.#.b', 'a.b', true],
  ['a.#.b', 'a.x.y.b', true],
  ['a.#.b', 'a', false],
  ['#.#', 'a', true],
  ['*.#', '', false],
  ['#.*', 'a', true],
  ['a*', 'ab', false],
  ['a#', 'ab', false],
  ['a#', 'a#', true],
  ['.', '.', true],
  ['*.*', '.', true],
])('N02: pattern %j and key %j: %s', (pattern, key, matches) => {
  expect(matchesTopicPattern(pattern, key)).toBe(matches);
});

test('N02: the longest pattern takes no longer for being hostile', () => {
  const pattern = `${'#.'.repeat(126)}x`;
  const startedAt = performance.now();
  expect(matchesTopicPattern(pattern, 'a.'.repeat(127))).toBe(false);
  expect(performance.now() - startedAt).toBeLessThan(1_000);
});

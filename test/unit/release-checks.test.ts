import { beforeAll, describe, expect, test } from '@jest/globals';

/*
 * What `npm run release` refuses, and in which words.
 */

interface Manifest {
  name: string;
  version?: string;
  private?: boolean;
  dependencies?: Record<string, string>;
}
interface Checks {
  treeFaults(status: string): string[];
  versionFaults(
    version: string,
    manifests: Record<string, Manifest>,
    others: Record<string, string | undefined>,
  ): string[];
  packageFaults(packages: string[], manifests: Record<string, Manifest>): string[];
  changelogFaults(version: string, changelog: string): string[];
  tagFaults(version: string, tagged: boolean): string[];
}

let checks: Checks;
beforeAll(async () => {
  checks = await import(new URL('../../scripts/release-checks.mjs', import.meta.url).href);
});

test('a tree with changes is refused, and the first of them are named', () => {
  expect(checks.treeFaults('')).toEqual([]);
  expect(checks.treeFaults(' M README.md\n?? a.ts')).toEqual([
    'the working tree is not clean: commit, stash or remove README.md, a.ts',
  ]);
  const many = Array.from({ length: 7 }, (_, index) => `?? ${index}`).join('\n');
  expect(checks.treeFaults(many)).toEqual([expect.stringMatching(/ 0, 1, 2, 3, 4 and 2 more$/)]);
});

test('a version that differs anywhere is named with its place', () => {
  const one = { name: '@escrowmq/one', version: '0.2.0' };
  const two = {
    name: '@escrowmq/two',
    version: '0.2.0',
    dependencies: { '@escrowmq/one': '0.2.0' },
  };
  expect(checks.versionFaults('0.2.0', { one, two }, { Dockerfile: '0.2.0' })).toEqual([]);
  const found = checks.versionFaults(
    '0.3.0',
    {
      one: { ...one, version: '0.3.0' },
      two: { ...two, dependencies: { ...two.dependencies, zod: '4' } },
    },
    { Dockerfile: undefined },
  );
  expect(found).toEqual([
    'Dockerfile says no version, and package.json says 0.3.0',
    'two/package.json says 0.2.0, and package.json says 0.3.0',
    'two/package.json, dependencies.@escrowmq/one says 0.2.0, and package.json says 0.3.0',
  ]);
});

describe('the packages', () => {
  const one = { name: '@escrowmq/one' };
  const two = { name: '@escrowmq/two', dependencies: { '@escrowmq/one': '0.2.0', zod: '4' } };
  test.each([
    [['one', 'two'], { one, two }, []],
    [['two', 'one'], { one, two }, ['two needs @escrowmq/one, which is not published before it']],
    [['one'], { one, two }, ['two is not private, and would not be packed']],
    [['one'], { one: { ...one, private: true } }, ['one is private, and would be packed']],
  ])('%j', (packages, manifests, faults) => {
    expect(checks.packageFaults(packages, manifests)).toEqual(faults);
  });
});

test.each([
  ['# Changelog\n\n## 0.2.0\n\n- new', []],
  ['# Changelog\n\n## 0.2.0 (2026-12-01)\n\n- new', []],
  ['# Changelog\n\n## 0.2.0\n\n## 0.1.0\n\n- new', ['CHANGELOG.md says nothing below "## 0.2.0"']],
  ['# Changelog\n\n## 0.2.0-rc.1\n\n- new', ['CHANGELOG.md has no section "## 0.2.0"']],
])('the changelog %j', (changelog, faults) => {
  expect(checks.changelogFaults('0.2.0', changelog)).toEqual(faults);
});

test('a version that is tagged is not packed again', () => {
  expect(checks.tagFaults('0.2.0', false)).toEqual([]);
  expect(checks.tagFaults('0.2.0', true)).toEqual([expect.stringMatching(/^v0\.2\.0 is tagged/)]);
});

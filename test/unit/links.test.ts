import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from '@jest/globals';
import { FILES } from '../support/house-rules.js';
import { linkFaults, type Page } from '../support/links.js';
import { PACKAGE_FOLDERS, ROOT } from '../support/packed.js';

/*
 * Every link of every page leads somewhere: in the repository, and from the pages that are packed, which
 * are read at a registry and in node_modules, where nothing lies beside them.
 */

const PAGES: Page[] = FILES.filter(({ path }) => path.endsWith('.md'));
const isPacked = ({ path }: Page) =>
  PACKAGE_FOLDERS.some((folder) => path === `${folder}/README.md`);

const readJson = (path: string) => JSON.parse(readFileSync(join(ROOT, path), 'utf8'));
const repository = readJson('package.json').repository.url.replace(/^git\+|\.git$/g, '') as string;
const packages = PACKAGE_FOLDERS.map((folder) => readJson(`${folder}/package.json`).name as string);
const world = {
  repository,
  packages,
  exists: (path: string) => existsSync(join(ROOT, path)),
  page: (path: string) => PAGES.find((page) => page.path === path),
};

test('every page of the repository', () => {
  expect(PAGES.length).toBeGreaterThan(15);
  expect(PAGES.flatMap((page) => linkFaults(page, { ...world, packed: false }))).toEqual([]);
});

test('the page of every package', () => {
  const packed = PAGES.filter(isPacked);
  expect(packed).toHaveLength(PACKAGE_FOLDERS.length);
  expect(packed.flatMap((page) => linkFaults(page, { ...world, packed: true }))).toEqual([]);
});

test('the picture of the README is the same in the light and in the dark, but for its colours', () => {
  const [light, dark] = ['light', 'dark'].map((name) =>
    readFileSync(join(ROOT, 'docs', `message-${name}.svg`), 'utf8').replaceAll(
      /#[0-9a-f]{6}/g,
      '#',
    ),
  );
  expect(light).toContain('<title id="title">');
  expect(dark).toBe(light);
});

describe('finds', () => {
  const faults = (text: string, packed = false) =>
    linkFaults({ path: 'broker/README.md', text }, { ...world, packed });
  const main = `${repository}/blob/main`;

  test.each([
    ['[a](../docs/no-such.md)', false],
    ['[a](../docs/errors.md#no-such)', false],
    ['[a](#no-such)', false],
    ['<img src="../docs/no-such.svg">', false],
    ['<source srcset="../docs/no-such.svg">', false],
    ['[a](../docs/errors.md)', true],
    [`[a](${main}/docs/no-such.md)`, true],
    [`[a](${main}/docs/errors.md#no-such)`, true],
    [`[a](${repository}/tree/main/no-such)`, true],
    [`[a](${repository}#no-such)`, true],
    ['[a](https://www.npmjs.com/package/@escrowmq/no-such)', true],
    ['[a]: ../docs/no-such.md', false],
  ])('%s', (text, packed) => {
    expect(faults(text, packed)).toHaveLength(1);
  });

  test.each([
    ['[a](../docs/errors.md#state_conflict)', false],
    ['## Here it is\n[a](#here-it-is)', true],
    [`[a](${main}/docs/errors.md#state_conflict)`, true],
    [`[a](${repository}/tree/main/broker)`, true],
    [`[a](${repository}#readme)`, true],
    ['[a](https://www.npmjs.com/package/@escrowmq/consumer)', true],
    ['[a](https://www.rfc-editor.org/rfc/rfc9457)', true],
    ['`[a](no-such.md)`', true],
    ['```md\n[a](no-such.md)\n```', true],
  ])('nothing in %j', (text, packed) => {
    expect(faults(text, packed)).toEqual([]);
  });
});

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, test } from '@jest/globals';
import { FOUND_IDS, foundFaults, foundRows } from './support/found-table.js';

/*
 * Holds test/found.md to the tests: every fault that was found has one, by its name. Whether that
 * test bites is for whoever changes it to see.
 */

const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

function sourceOf(file: string): string | undefined {
  const path = join(ROOT, file);
  return existsSync(path) ? readFileSync(path, 'utf8') : undefined;
}

test('every fault that was found has a test, and the table names it as it is', () => {
  const rows = foundRows(readFileSync(join(ROOT, 'test', 'found.md'), 'utf8'));
  expect(foundFaults(rows, FOUND_IDS, sourceOf)).toEqual([]);
});

test('a row without a test, a test that is gone, and an id without a row are noticed', () => {
  const page = [
    '| id | what | test |',
    '|---|---|---|',
    '| U01 | one | `test/a.test.ts` › a neighbour goes on |',
    "| U02 | two | `test/a.test.ts` › the caller's own call<br>`test/b.test.ts` › gone |",
    '| U03 | three | `test/a.test.ts` › renamed |',
    '| U04 | four | |',
  ].join('\n');
  const source = "test('a neighbour goes on'); test('the caller\\'s own call');";
  const faults = foundFaults(foundRows(page), ['U01', 'U02', 'U03', 'U04', 'U05'], (file) =>
    file === 'test/a.test.ts' ? source : undefined,
  );
  expect(faults).toEqual([
    'U05 has no row',
    'U04 names no test',
    'U02 names test/b.test.ts, which is not there',
    'U03: test/a.test.ts has no test "renamed"',
  ]);
});

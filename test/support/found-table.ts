/*
 * The table of test/found.md: faults of version 0.1 that were found by using it, and the test that
 * keeps each from coming back.
 */

/** Every id that the table must have: of use, of newcomers and operators, of newer servers, of clusters. */
export const FOUND_IDS: readonly string[] = [
  ...numbered('U', 1, 25),
  ...numbered('N', 1, 7),
  ...numbered('N', 9, 15),
  ...numbered('V', 1, 3),
  'X1',
  'X2',
];

function numbered(letter: string, from: number, to: number): string[] {
  return Array.from(
    { length: to - from + 1 },
    (_, index) => `${letter}${String(from + index).padStart(2, '0')}`,
  );
}

export interface FoundRow {
  id: string;
  what: string;
  tests: FoundTest[];
}

/** A test as the table names it: its file, and a part of its name as the file has it. */
export interface FoundTest {
  file: string;
  name: string;
}

const ROW = /^\| ([A-Z]\d+) \| (.+?) \| (.*?) ?\|$/gm;
const TEST = /`(test\/[^`]+)` › ([^<|]+)/g;

/** @param page of Markdown: rows of `id | what | tests`, with `file` › name for each test */
export function foundRows(page: string): FoundRow[] {
  return [...page.matchAll(ROW)].map(([, id = '', what = '', tests = '']) => ({
    id,
    what,
    tests: [...tests.matchAll(TEST)].map(([, file = '', name = '']) => ({
      file,
      name: name.trim(),
    })),
  }));
}

/**
 * What is wrong with the table.
 *
 * @param sourceOf the text of a test file; undefined when there is none
 */
export function foundFaults(
  rows: readonly FoundRow[],
  ids: readonly string[],
  sourceOf: (file: string) => string | undefined,
): string[] {
  const named = rows.map(({ id }) => id);
  return [
    ...ids.filter((id) => !named.includes(id)).map((id) => `${id} has no row`),
    ...named.filter((id, index) => named.indexOf(id) !== index).map((id) => `${id} has two rows`),
    ...rows.filter(({ tests }) => tests.length === 0).map(({ id }) => `${id} names no test`),
    ...rows.flatMap(({ id, tests }) => tests.flatMap((test) => testFaults(id, test, sourceOf))),
  ];
}

function testFaults(
  id: string,
  { file, name }: FoundTest,
  sourceOf: (file: string) => string | undefined,
): string[] {
  const source = sourceOf(file);
  if (source === undefined) return [`${id} names ${file}, which is not there`];
  return plain(source).includes(plain(name)) ? [] : [`${id}: ${file} has no test "${name}"`];
}

/** Without the marks that code needs and a page does not: an apostrophe is `\'` in a string. */
const plain = (text: string) => text.replace(/\\(?=['"`])/g, '');

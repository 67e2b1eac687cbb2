import { expect, test } from '@jest/globals';
import {
  coverageFaults,
  coverageTable,
  FAULTS,
  idsOf,
  skipsInTests,
  skipsOf,
  titlesById,
} from '../faults/coverage.js';

test('each fault of the table is tried by a test, or has a reason why not', () => {
  const titles = titlesById();
  // With ESCROW_TEST_FAULT_TABLE=1 the table is what somebody wants to read.
  if (process.env.ESCROW_TEST_FAULT_TABLE === '1') process.stdout.write(coverageTable(titles));
  expect(coverageFaults(titles)).toEqual([]);
});

test('a test of a fault is skipped by describeUnless alone, which says so', () => {
  expect(skipsInTests()).toEqual([]);
});

test('whatever jest has to leave a test out is found where titles name faults', () => {
  // Put together here, because this file is searched like any other.
  const named = (call: string) => `${call}('it holds (${'F01'})', () => {`;
  const calls = ['test.skip', 'describe.only', 'it.todo', 'test.concurrent.failing', 'xtest'];
  for (const call of calls) expect(skipsOf(named(call))).toEqual([call]);
  for (const call of ['test', 'describe.each(CASES)', 'unit.skip', 'test.each(skip)']) {
    expect(skipsOf(named(call))).toEqual([]);
  }
  expect(skipsOf("test.skip('nothing that is a fault', () => {")).toEqual([]);
});

test('the faults are numbered without a gap', () => {
  const ids = Array.from({ length: 80 }, (_, n) => `F${String(n + 1).padStart(2, '0')}`);
  expect(Object.keys(FAULTS)).toEqual(ids);
});

test('an id counts at the end of a title, in whatever quotes, and nowhere else', () => {
  // Put together here, because this file is searched like any other.
  const title = (quote: string, ids: string) => `test(${quote}it holds (${ids})${quote}, () => {`;
  expect(idsOf(title("'", 'F01'))).toEqual(['F01']);
  expect(idsOf(`${title('"', 'F02, F03')}\n${title('`', 'F03, F99')}`)).toEqual([
    'F02',
    'F03',
    'F99',
  ]);
  expect(idsOf("// as (F04) says\ntest('F05: it holds'")).toEqual([]);
});

test('a fault without a test, a reason too many and an unknown id are told', () => {
  const titles = new Map([
    ['F01', ['a.test.ts']],
    ['F99', ['b.test.ts']],
  ]);
  const faults = { F01: 'one', F02: 'two', F03: 'three' };
  expect(coverageFaults(titles, faults, { F01: 'why', F03: 'why', F98: 'why' })).toEqual([
    'F02 has neither a test nor a reason: two',
    'F01 has a reason not to be tried, and is tried in a.test.ts',
    'F99 is no fault of the table: b.test.ts',
    'F98 is no fault of the table',
  ]);
});

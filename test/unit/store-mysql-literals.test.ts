import { describe, expect, test } from '@jest/globals';
import { insertText, withValues } from '../../broker/src/store/mysql/literals.js';

/** Reads a MySQL string literal as a session without NO_BACKSLASH_ESCAPES does. */
function read(literal: string): string {
  expect(literal).toMatch(/^'(?:[^'\\]|''|\\\\)*'$/s);
  return literal.slice(1, -1).replaceAll("''", "'").replaceAll('\\\\', '\\');
}

describe('a value in a statement', () => {
  test.each([
    [7, '7'],
    [-1.5, '-1.5'],
    [2 ** 53, '9007199254740992'],
    [null, 'null'],
    [Buffer.from([0, 39, 92, 255]), "x'00275cff'"],
    [Buffer.alloc(0), "x''"],
    ['', "''"],
  ])('%j is written as %s', (value, literal) => {
    expect(withValues('select ?', [value])).toBe(`select ${literal}`);
  });

  test.each([
    "it's",
    "''",
    '\\',
    "\\'",
    "'; drop table escrow_transaction; -- ",
    '\\\\\\',
    'nul \u0000 line \n \u001a',
    '漢字 😀 \u2028',
    '? and ??',
  ])('a string ends where it ends: %j', (text) => {
    const [literal = '', after] = withValues('?|?', [text, 1]).split(/\|(?=1$)/);
    expect(read(literal)).toBe(text);
    expect(after).toBe('1');
  });

  test('what looks like a mark in a value is none', () => {
    const text = withValues('update t set a = ?, b = ? where id in (?, ?)', ['?', 'what?', 1, 2]);
    expect(text).toBe("update t set a = '?', b = 'what?' where id in (1, 2)");
  });

  test.each([
    ['too few', [1]],
    ['too many', [1, 2, 3]],
  ])('%s values for the marks are refused', (_what, values) => {
    expect(() => withValues('select ?, ?', values)).toThrow('2 marks');
  });
});

describe('an INSERT', () => {
  const table = 't';
  const columns = ['id', 'at'];

  test('has every row in one statement, each value in its expression', () => {
    const rows = [
      ['a?', 1],
      ['b', 2],
    ];
    const expressions = ['?', 'now() + ?'];
    expect(insertText({ table, columns, expressions, rows, onDuplicate: 'fail' })).toBe(
      "insert into t (id, at) values ('a?', now() + 1), ('b', now() + 2)",
    );
  });

  test('that leaves out what is there changes nothing of it', () => {
    expect(insertText({ table, columns, rows: [['a', null]], onDuplicate: 'ignore' })).toBe(
      "insert into t (id, at) values ('a', null) on duplicate key update id = id",
    );
  });

  test('with a row of another length is refused', () => {
    expect(() =>
      insertText({ table, columns, rows: [['a', 1], ['b']], onDuplicate: 'fail' }),
    ).toThrow('2 columns');
  });
});

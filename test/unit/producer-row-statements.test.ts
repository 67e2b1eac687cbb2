import { expect, test } from '@jest/globals';
import { touchesRowsOnly as mysqlTouchesRowsOnly } from '../../database/src/adapters/mysql2-transaction.js';
import { touchesRowsOnly as postgresTouchesRowsOnly } from '../../database/src/adapters/pg-transaction.js';

/* A statement that passes here goes without a savepoint: it must not be able to end a transaction. */

const BOTH = [mysqlTouchesRowsOnly, postgresTouchesRowsOnly];

test.each([
  'select 1',
  '  SELECT * from account for update',
  '\n\tinsert into account values (?)',
  'update account set phone = 1',
  'delete from account',
  'with a as (select 1) select * from a',
  'values (1)',
  'select 1;',
  'select 1 ; \n',
])('%j touches rows only', (sql) => {
  for (const touchesRowsOnly of BOTH) expect(touchesRowsOnly(sql)).toBe(true);
});

test.each([
  'commit',
  'rollback',
  'begin',
  'start transaction',
  'commit and chain',
  'set autocommit = 0',
  'create table a (id int)',
  'alter table a add b int',
  'drop table a',
  'truncate a',
  'call p()',
  'lock tables a write',
  'prepare s from "commit"',
  'execute s',
  'savepoint escrow_barrier',
  'rollback to savepoint a',
  '/* a comment */ commit',
  '-- a comment\ncommit',
  'select 1; commit',
  "select ';'; commit",
  'selection',
  'insertion',
  '',
  ';commit',
])('%j may end a transaction', (sql) => {
  for (const touchesRowsOnly of BOTH) expect(touchesRowsOnly(sql)).toBe(false);
});

test.each([undefined, null, 7, {}, { sql: 7 }, { text: 7 }, ['select 1']])(
  '%j is no text that is known, so it may be anything',
  (statement) => {
    for (const touchesRowsOnly of BOTH) expect(touchesRowsOnly(statement)).toBe(false);
  },
);

test('the text is found where each driver takes it', () => {
  expect(mysqlTouchesRowsOnly({ sql: 'select 1' })).toBe(true);
  expect(mysqlTouchesRowsOnly({ sql: 'commit' })).toBe(false);
  expect(postgresTouchesRowsOnly({ text: 'select 1' })).toBe(true);
  expect(postgresTouchesRowsOnly({ text: 'commit' })).toBe(false);
});

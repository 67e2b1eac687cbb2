import type { Dialect } from './database.js';

/** Rows of a table that are named by their primary key. */
export interface RowsByKey {
  /** Its name. */
  table: string;
  /** The primary key: its columns, and how a value of each is written, with one `?`. */
  key: readonly {
    /** Its name. */
    column: string;
    /** How its value is written. */
    value: string;
  }[];
  /** How many rows. */
  count: number;
  /** What must hold of a row as well, by columns that are not in the key. @default nothing */
  guard?: string;
}

/**
 * A statement that deletes rows by their primary key; its values are the keys, one after the other.
 *
 * It looks at no row but these. On MySQL a plain `delete … where id in (…)` reads the whole table where
 * most of it goes, on 10.11 as on 9.7, and so waits for every row of a transaction that is still open,
 * with all the others locked meanwhile; `force index` does not help it, and neither does an order with
 * a limit where somebody else has deleted some already. A join in a given order does. On PostgreSQL
 * whoever deletes the same rows at the same time does not wait for the other, so that the two can't wait
 * in a circle.
 */
export function deleteRowsSql(dialect: Dialect, rows: RowsByKey): string {
  return FORMS[dialect](rows);
}

const FORMS: Record<Dialect, (rows: RowsByKey) => string> = {
  mysql({ table, key, count, guard }) {
    const first = key.map(({ column, value }) => `${value} as ${column}`).join(', ');
    const other = key.map(({ value }) => value).join(', ');
    const chosen = [first, ...Array(count - 1).fill(other)].join(' union all select ');
    const matches = key.map(({ column }) => `stored.${column} = chosen.${column}`).join(' and ');
    return `delete stored from (select ${chosen}) as chosen
straight_join ${table} as stored force index (primary) on ${matches}${guarded('where', guard)}`;
  },
  postgres({ table, key, count, guard }) {
    const columns = columnsOf(key);
    return `delete from ${table} where (${columns}) in (
  select ${columns} from ${table} where (${columns}) in (${valuesOf(key, count)})${guarded('and', guard)}
  order by ${columns} for update skip locked)`;
  },
  sqlite: ({ table, key, count, guard }) =>
    `delete from ${table} where (${columnsOf(key)}) in (values ${valuesOf(key, count)})${guarded('and', guard)}`,
};

const columnsOf = (key: RowsByKey['key']) => key.map(({ column }) => column).join(', ');

const valuesOf = (key: RowsByKey['key'], count: number) =>
  Array(count)
    .fill(`(${key.map(({ value }) => value).join(', ')})`)
    .join(', ');

const guarded = (word: string, guard: string | undefined) =>
  guard === undefined ? '' : ` ${word} ${guard}`;

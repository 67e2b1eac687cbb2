import { isPlainId } from '@escrowmq/protocol';
import type { RowsToInsert, SqlValue } from '../sql.js';

/*
 * Statements as the text that the server reads, values written into them. The driver can do it too,
 * at twice the cost: it looks for quotes and comments in the statement, and for dates, objects and
 * lists among the values. Ours are four kinds, and our statements hold no `?` but the marks.
 *
 * Measured for batches of 128 inserts, node's part a row: 4.1 µs with the driver's, 1.3 µs with
 * these. Prepared statements were no cheaper (2.8 µs; the database 15 µs against 17 µs), and would
 * need one for each length of a batch.
 */

/**
 * A string ends only at a quote, and a backslash escapes: sessions are set up without
 * NO_BACKSLASH_ESCAPES and speak UTF-8, of which no byte beyond the first looks like either.
 */
function literal(value: SqlValue): string {
  switch (typeof value) {
    case 'number':
      return String(value);
    case 'string':
      return `'${value.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
    default:
      return value === null ? 'null' : `x'${value.toString('hex')}'`;
  }
}

/** An id as its 16 bytes; half a microsecond less than by way of a buffer, three times in its life. */
export function idLiteral(id: string): string {
  if (!isPlainId(id)) throw new Error(`${JSON.stringify(id)} is no id of a transaction`);
  return `x'${id.slice(0, 8)}${id.slice(9, 13)}${id.slice(14, 18)}${id.slice(19, 23)}${id.slice(24)}'`;
}

/** The statement with a value in the place of each `?`. */
export function withValues(sql: string, values: readonly SqlValue[]): string {
  const [first = '', ...rest] = sql.split('?');
  if (rest.length !== values.length) {
    throw new Error(`a statement has ${rest.length} marks and got ${values.length} values: ${sql}`);
  }
  return rest.reduce((text, part, index) => text + literal(values[index] ?? null) + part, first);
}

/** One INSERT of all rows. */
export function insertText({
  table,
  columns,
  expressions,
  rows,
  onDuplicate,
}: RowsToInsert): string {
  // The text around each value is the same in every row: it is cut at the marks once.
  const row = `(${expressions?.join(', ') ?? columns.map(() => '?').join(', ')})`;
  const [before = '', ...after] = row.split('?');
  let text = `insert into ${table} (${columns.join(', ')}) values `;
  let separator = before;
  for (const values of rows) {
    if (values.length !== after.length) {
      throw new Error(`a row for ${table} has ${values.length} values for ${after.length} columns`);
    }
    text += separator;
    separator = `, ${before}`;
    for (let index = 0; index < after.length; index++) {
      text += literal(values[index] ?? null) + after[index];
    }
  }
  const [key = ''] = columns;
  // Not INSERT IGNORE, which would also swallow values that do not fit.
  return onDuplicate === 'ignore' ? `${text} on duplicate key update ${key} = ${key}` : text;
}

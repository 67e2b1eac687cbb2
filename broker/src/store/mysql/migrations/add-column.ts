/**
 * Adds a column once. MySQL has no ADD COLUMN IF NOT EXISTS, and commits an ALTER before the migration
 * is on record: cut off in between, it must find its column there already.
 *
 * @param definition its type and default: `int not null default 0`
 */
export function addColumn(table: string, column: string, definition: string): string[] {
  return [
    `set @add_column = if(
      exists (
        select 1 from information_schema.columns
        where table_schema = database() and table_name = '${table}' and column_name = '${column}'
      ),
      'do 0',
      'alter table ${table} add column ${column} ${definition}'
    )`,
    'prepare add_column from @add_column',
    'execute add_column',
    'deallocate prepare add_column',
  ];
}

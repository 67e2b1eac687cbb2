import type { Migration } from '../../migrate.js';

/**
 * Which delayed messages were cancelled before they were due. MySQL has no ADD COLUMN IF NOT EXISTS,
 * and commits an ALTER before the migration is on record: cut off in between, it must find its
 * column there already.
 */
export const cancelledMessages: Migration = {
  version: 3,
  name: 'cancelled messages',
  statements: [
    `set @add_cancelled = if(
      exists (
        select 1 from information_schema.columns
        where table_schema = database() and table_name = 'escrow_transaction'
          and column_name = 'cancelled'
      ),
      'do 0',
      'alter table escrow_transaction add column cancelled int unsigned not null default 0'
    )`,
    'prepare add_cancelled from @add_cancelled',
    'execute add_cancelled',
    'deallocate prepare add_cancelled',
  ],
};

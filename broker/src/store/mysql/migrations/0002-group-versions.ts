import type { Migration } from '../../migrate.js';

/**
 * Which settings of a producer group are the newer ones is what their version says. MySQL has no
 * ADD COLUMN IF NOT EXISTS, and commits an ALTER before the migration is on record: cut off in
 * between, it must find its column there already.
 */
export const groupVersions: Migration = {
  version: 2,
  name: 'group versions',
  statements: [
    `set @add_settings_version = if(
      exists (
        select 1 from information_schema.columns
        where table_schema = database() and table_name = 'escrow_producer_group'
          and column_name = 'settings_version'
      ),
      'do 0',
      'alter table escrow_producer_group
         add column settings_version bigint not null default 0'
    )`,
    'prepare add_settings_version from @add_settings_version',
    'execute add_settings_version',
    'deallocate prepare add_settings_version',
  ],
};

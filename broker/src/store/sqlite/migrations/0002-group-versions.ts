import type { Migration } from '../../migrate.js';

/** Which settings of a producer group are the newer ones is what their version says. */
export const groupVersions: Migration = {
  version: 2,
  name: 'group versions',
  statements: [
    'alter table escrow_producer_group add column settings_version integer not null default 0',
  ],
};

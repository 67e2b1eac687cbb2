import type { Migration } from '../../migrate.js';
import { addColumn } from './add-column.js';

/** Which settings of a producer group are the newer ones is what their version says. */
export const groupVersions: Migration = {
  version: 2,
  name: 'group versions',
  statements: addColumn('escrow_producer_group', 'settings_version', 'bigint not null default 0'),
};

import type { Migration } from '../../migrate.js';
import { addColumn } from './add-column.js';

/** Which delayed messages were cancelled before they were due. */
export const cancelledMessages: Migration = {
  version: 3,
  name: 'cancelled messages',
  statements: addColumn('escrow_transaction', 'cancelled', 'int unsigned not null default 0'),
};

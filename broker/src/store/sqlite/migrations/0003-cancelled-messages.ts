import type { Migration } from '../../migrate.js';

/** Which delayed messages were cancelled before they were due. */
export const cancelledMessages: Migration = {
  version: 3,
  name: 'cancelled messages',
  statements: ['alter table escrow_transaction add column cancelled integer not null default 0'],
};

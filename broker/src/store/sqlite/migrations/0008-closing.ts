import type { Migration } from '../../migrate.js';
import { NEVER } from '../../sql.js';

/**
 * Forwarded transactions that have not settled for long: that this was told, whether an operator closed
 * them, and, from their purge until their tombstone goes, how their groups stood. A table of its own,
 * because few transactions come here and the row of one may be gone before this is.
 */
export const closing: Migration = {
  version: 8,
  name: 'closing',
  statements: [
    `create table if not exists escrow_unsettled (
      transaction_id blob not null primary key,
      owner_group text not null,
      closed_at integer not null default ${NEVER},
      closed_by text,
      closed_reason text,
      failed text
    ) without rowid`,
  ],
};

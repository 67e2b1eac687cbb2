import type { Migration } from '../../migrate.js';
import { NEVER } from '../../sql.js';

const TABLE = 'engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin';
const WORD = 'character set ascii collate ascii_bin';

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
      transaction_id binary(16) not null primary key,
      owner_group varchar(64) ${WORD} not null,
      closed_at bigint not null default ${NEVER},
      closed_by varchar(200),
      closed_reason varchar(500),
      failed text
    ) ${TABLE}`,
  ],
};

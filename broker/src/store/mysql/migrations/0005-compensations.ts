import type { Migration } from '../../migrate.js';
import { NEVER } from '../../sql.js';
import { addColumn } from './add-column.js';

const TABLE = 'engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin';
const WORD = 'character set ascii collate ascii_bin';

/**
 * Compensations: one for each message and group that gave up on it for good. Written in the database
 * transaction of the receipt that says so. `attempts` counts calls and is raised before each;
 * `failures` counts what had no answer, for the back-off. Where the group is called is in its
 * settings.
 */
export const compensations: Migration = {
  version: 5,
  name: 'compensations',
  statements: [
    `create table if not exists escrow_compensation (
      transaction_id binary(16) not null,
      consumer_group varchar(64) ${WORD} not null,
      message_number tinyint unsigned not null,
      producer_group varchar(64) ${WORD} not null,
      state varchar(12) ${WORD} not null,
      due_at bigint not null,
      attempts int not null default 0,
      failures int not null default 0,
      last_failure varchar(500),
      alerted tinyint not null default 0,
      requested_at bigint not null,
      ended_at bigint not null default ${NEVER},
      primary key (transaction_id, consumer_group, message_number),
      key escrow_compensation_due (state, due_at)
    ) ${TABLE}`,
    ...addColumn('escrow_producer_group', 'compensation_urls', 'text'),
  ],
};

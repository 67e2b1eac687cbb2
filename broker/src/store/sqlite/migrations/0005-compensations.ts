import type { Migration } from '../../migrate.js';
import { NEVER } from '../../sql.js';

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
      transaction_id blob not null,
      consumer_group text not null,
      message_number integer not null,
      producer_group text not null,
      state text not null,
      due_at integer not null,
      attempts integer not null default 0,
      failures integer not null default 0,
      last_failure text,
      alerted integer not null default 0,
      requested_at integer not null,
      ended_at integer not null default ${NEVER},
      primary key (transaction_id, consumer_group, message_number)
    ) without rowid`,
    `create index if not exists escrow_compensation_due on escrow_compensation (state, due_at)`,
    'alter table escrow_producer_group add column compensation_urls text',
  ],
};

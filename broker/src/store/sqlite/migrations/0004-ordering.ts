import type { Migration } from '../../migrate.js';

/**
 * The order of messages per topic and key. `escrow_ordering_key` gives out sequences, from 1 and
 * without gaps, in the database transaction of the commit. `escrow_ordered_message` holds what is
 * not confirmed yet: only the lowest sequence of a key may be published.
 */
export const ordering: Migration = {
  version: 4,
  name: 'ordering',
  statements: [
    `create table if not exists escrow_ordering_key (
      key_id blob not null primary key,
      topic text not null,
      ordering_key blob not null,
      last_sequence integer not null
    ) without rowid`,
    `create table if not exists escrow_ordered_message (
      key_id blob not null,
      sequence integer not null,
      transaction_id blob not null,
      message_number integer not null,
      primary key (key_id, sequence)
    ) without rowid`,
    `create index if not exists escrow_ordered_message_transaction
      on escrow_ordered_message (transaction_id, message_number)`,
  ],
};

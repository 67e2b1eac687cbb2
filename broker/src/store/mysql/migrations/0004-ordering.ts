import type { Migration } from '../../migrate.js';

const TABLE = 'engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin';
const WORD = 'character set ascii collate ascii_bin';

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
      key_id binary(16) not null primary key,
      topic varchar(100) ${WORD} not null,
      ordering_key varbinary(512) not null,
      last_sequence bigint not null
    ) ${TABLE}`,
    `create table if not exists escrow_ordered_message (
      key_id binary(16) not null,
      sequence bigint not null,
      transaction_id binary(16) not null,
      message_number tinyint unsigned not null,
      primary key (key_id, sequence),
      key escrow_ordered_message_transaction (transaction_id, message_number)
    ) ${TABLE}`,
  ],
};

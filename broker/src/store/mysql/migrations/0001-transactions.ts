import type { Migration } from '../../migrate.js';
import { NEVER } from '../../sql.js';

// Binary collations throughout: under the default ones 'abc', 'ABC' and 'abc ' are one key.
const TABLE = 'engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin';
const WORD = 'character set ascii collate ascii_bin';

/** Times are integer UTC milliseconds; ids are UUIDv7 in 16 bytes. */
export const transactions: Migration = {
  version: 1,
  name: 'transactions',
  statements: [
    `create table if not exists escrow_transaction (
      id binary(16) not null primary key,
      state enum('prepared', 'committed', 'forwarded', 'rolledBack', 'parked')
        not null default 'prepared',
      due_at bigint not null default ${NEVER},
      producer_group varchar(64) ${WORD} not null,
      content_hash binary(32) not null,
      message_count tinyint unsigned not null,
      pending int unsigned not null,
      unrouted int unsigned not null default 0,
      receipts_wanted smallint unsigned not null,
      prepared_at bigint not null,
      finished_at bigint not null default ${NEVER},
      settled_at bigint not null default ${NEVER},
      decision enum('none', 'commit', 'rollback') not null default 'none',
      decided_at bigint not null default ${NEVER},
      decided_by varchar(2100),
      decision_reason varchar(500),
      verdict_token binary(8) not null default '',
      checks int not null default 0,
      unanswered int not null default 0,
      unanswered_since bigint not null default ${NEVER},
      alerted tinyint not null default 0,
      attempts int not null default 0,
      last_failure varchar(500),
      parked_reason enum('none', 'unresolved', 'undeliverable') not null default 'none',
      parked_at bigint not null default ${NEVER},
      bytes int unsigned not null,
      topics varchar(3300) ${WORD} not null,
      details mediumtext,
      messages longtext not null,
      key escrow_transaction_due (state, due_at)
    ) ${TABLE}`,
    `create table if not exists escrow_business_key (
      business_key varbinary(512) not null,
      transaction_id binary(16) not null,
      primary key (business_key, transaction_id),
      key escrow_business_key_transaction (transaction_id)
    ) ${TABLE}`,
    `create table if not exists escrow_receipt (
      transaction_id binary(16) not null,
      consumer_group varchar(64) ${WORD} not null,
      message_number tinyint unsigned not null,
      kind varchar(8) ${WORD} not null,
      attempts int,
      cause varchar(500),
      at bigint not null,
      primary key (transaction_id, consumer_group, message_number)
    ) ${TABLE}`,
    `create table if not exists escrow_history (
      entry bigint not null auto_increment primary key,
      transaction_id binary(16) not null,
      at bigint not null,
      event varchar(20) ${WORD} not null,
      detail text not null,
      key escrow_history_transaction (transaction_id, entry)
    ) ${TABLE}`,
    `create table if not exists escrow_tombstone (
      id binary(16) not null primary key,
      producer_group varchar(64) ${WORD} not null,
      content_hash binary(32) not null,
      decision varchar(8) ${WORD} not null,
      decided_at bigint not null,
      decided_by varchar(2100),
      decision_reason varchar(500),
      purged_at bigint not null,
      key escrow_tombstone_purged (purged_at)
    ) ${TABLE}`,
    `create table if not exists escrow_counter (
      name varchar(64) ${WORD} not null primary key,
      value bigint not null
    ) ${TABLE}`,
    `create table if not exists escrow_store (
      singleton tinyint not null primary key,
      id char(36) ${WORD} not null
    ) ${TABLE}`,
    `create table if not exists escrow_producer_group (
      name varchar(64) ${WORD} not null primary key,
      check_urls text not null,
      check_policy text not null,
      signing_secret varchar(128) ${WORD} not null,
      previous_secret varchar(128) ${WORD},
      rotated_at bigint,
      updated_at bigint not null
    ) ${TABLE}`,
  ],
};

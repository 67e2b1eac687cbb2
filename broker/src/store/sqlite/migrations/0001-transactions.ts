import type { Migration } from '../../migrate.js';
import { NEVER } from '../../sql.js';

/**
 * An index for each state in which a row is looked for by its time, or counted: what is finished
 * stands in none of them, and a row moves from one to the next only when its state changes.
 * Measured against one index on (state, due_at): a fifth less CPU for the three writes of a row.
 */
const DUE_INDEXES = [
  `create index if not exists escrow_transaction_prepared
    on escrow_transaction (due_at) where state = 'prepared'`,
  `create index if not exists escrow_transaction_committed
    on escrow_transaction (due_at) where state = 'committed'`,
  `create index if not exists escrow_transaction_parked
    on escrow_transaction (id) where state = 'parked'`,
  `create index if not exists escrow_transaction_rolled_back
    on escrow_transaction (id) where state = 'rolledBack'`,
];

/** Times are integer UTC milliseconds; ids are UUIDv7 in 16 bytes. */
export const transactions: Migration = {
  version: 1,
  name: 'transactions',
  statements: [
    `create table if not exists escrow_transaction (
      id blob not null primary key,
      state text not null default 'prepared',
      due_at integer not null default ${NEVER},
      producer_group text not null,
      content_hash blob not null,
      message_count integer not null,
      pending integer not null,
      unrouted integer not null default 0,
      receipts_wanted integer not null,
      prepared_at integer not null,
      finished_at integer not null default ${NEVER},
      settled_at integer not null default ${NEVER},
      decision text not null default 'none',
      decided_at integer not null default ${NEVER},
      decided_by text,
      decision_reason text,
      verdict_token blob not null default x'0000000000000000',
      checks integer not null default 0,
      unanswered integer not null default 0,
      unanswered_since integer not null default ${NEVER},
      alerted integer not null default 0,
      attempts integer not null default 0,
      last_failure text,
      parked_reason text not null default 'none',
      parked_at integer not null default ${NEVER},
      bytes integer not null,
      topics text not null,
      details text,
      messages text not null
    )`,
    ...DUE_INDEXES,
    `create table if not exists escrow_business_key (
      business_key blob not null,
      transaction_id blob not null,
      primary key (business_key, transaction_id)
    ) without rowid`,
    `create index if not exists escrow_business_key_transaction
      on escrow_business_key (transaction_id)`,
    `create table if not exists escrow_receipt (
      transaction_id blob not null,
      consumer_group text not null,
      message_number integer not null,
      kind text not null,
      attempts integer,
      cause text,
      at integer not null,
      primary key (transaction_id, consumer_group, message_number)
    ) without rowid`,
    `create table if not exists escrow_history (
      entry integer primary key autoincrement,
      transaction_id blob not null,
      at integer not null,
      event text not null,
      detail text not null
    )`,
    `create index if not exists escrow_history_transaction
      on escrow_history (transaction_id, entry)`,
    `create table if not exists escrow_tombstone (
      id blob not null primary key,
      producer_group text not null,
      content_hash blob not null,
      decision text not null,
      decided_at integer not null,
      decided_by text,
      decision_reason text,
      purged_at integer not null
    ) without rowid`,
    'create index if not exists escrow_tombstone_purged on escrow_tombstone (purged_at)',
    `create table if not exists escrow_counter (
      name text not null primary key,
      value integer not null
    )`,
    `create table if not exists escrow_store (
      singleton integer not null primary key,
      id text not null
    )`,
    `create table if not exists escrow_producer_group (
      name text not null primary key,
      check_urls text not null,
      check_policy text not null,
      signing_secret text not null,
      previous_secret text,
      rotated_at integer,
      updated_at integer not null
    )`,
  ],
};

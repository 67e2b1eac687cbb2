import type { Migration } from '../../migrate.js';

/** HTTP endpoints that are notified of the messages of a topic, each as a consumer group of its own. */
export const webhooks: Migration = {
  version: 6,
  name: 'webhooks',
  statements: [
    `create table if not exists escrow_webhook (
      name text not null primary key,
      settings text not null,
      signing_secret text not null,
      previous_secret text,
      rotated_at integer,
      disabled_at integer,
      disabled_reason text,
      updated_at integer not null
    ) without rowid`,
  ],
};

import type { Migration } from '../../migrate.js';

/**
 * HTTP endpoints that are notified of the messages of a topic, each as a consumer group of its own.
 * Two on one queue would each get a part of its messages, so a group of a topic has one.
 */
export const webhooks: Migration = {
  version: 6,
  name: 'webhooks',
  statements: [
    `create table if not exists escrow_webhook (
      name text not null primary key,
      topic text not null,
      consumer_group text not null,
      settings text not null,
      former_routing_keys text not null,
      settings_version integer not null,
      revision integer not null,
      signing_secret text not null,
      previous_secret text,
      rotated_at integer,
      enabled_at integer not null,
      disabled_at integer,
      disabled_reason text,
      updated_at integer not null,
      unique (topic, consumer_group)
    ) without rowid`,
  ],
};

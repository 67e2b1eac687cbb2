import type { Migration } from '../../migrate.js';

const TABLE = 'engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin';
const WORD = 'character set ascii collate ascii_bin';

/**
 * HTTP endpoints that are notified of the messages of a topic, each as a consumer group of its own.
 * Two on one queue would each get a part of its messages, so a group of a topic has one.
 */
export const webhooks: Migration = {
  version: 6,
  name: 'webhooks',
  statements: [
    `create table if not exists escrow_webhook (
      name varchar(64) ${WORD} not null primary key,
      topic varchar(100) ${WORD} not null,
      consumer_group varchar(64) ${WORD} not null,
      settings mediumtext not null,
      former_routing_keys mediumtext not null,
      settings_version bigint not null,
      revision bigint not null,
      signing_secret varchar(128) ${WORD} not null,
      previous_secret varchar(128) ${WORD},
      rotated_at bigint,
      enabled_at bigint not null,
      disabled_at bigint,
      disabled_reason varchar(500),
      updated_at bigint not null,
      unique key escrow_webhook_group (topic, consumer_group)
    ) ${TABLE}`,
  ],
};

import type { Migration } from '../../migrate.js';

const TABLE = 'engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin';
const WORD = 'character set ascii collate ascii_bin';

/** The brokers that live on this store, with their versions. */
export const instances: Migration = {
  version: 7,
  name: 'instances',
  statements: [
    `create table if not exists escrow_instance (
      id char(36) ${WORD} not null primary key,
      version varchar(64) ${WORD} not null,
      host varchar(255) not null,
      started_at bigint not null,
      seen_at bigint not null
    ) ${TABLE}`,
  ],
};

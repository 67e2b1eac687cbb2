import type { Migration } from '../../migrate.js';

/** The brokers that live on this store, with their versions. */
export const instances: Migration = {
  version: 7,
  name: 'instances',
  statements: [
    `create table if not exists escrow_instance (
      id text not null primary key,
      version text not null,
      host text not null,
      started_at integer not null,
      seen_at integer not null
    ) without rowid`,
  ],
};

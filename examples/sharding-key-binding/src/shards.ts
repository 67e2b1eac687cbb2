import { createHash } from 'node:crypto';
import { ensureConsumedTable } from '@escrowmq/consumer';
import { ensureBarrierTable } from '@escrowmq/producer';
import { createPool, type Pool } from 'mysql2/promise';
import { INDEXES } from './indexes.js';

/** One database: some of the users, and some of the entries of every index. */
export interface Shard {
  /** Travels in every check, so that whoever answers it asks the database that knows. */
  name: string;
  pool: Pool;
}

export interface Shards {
  all: readonly Shard[];
  /** Users are sharded by id. */
  ofUser(userId: number): Shard;
  /** Index entries are sharded by their own value: a look-up knows nothing else. */
  ofValue(value: string): Shard;
  close(): Promise<void>;
}

/** For one process; 4 processes of 4 pools stay far below the 151 that MySQL allows by default. */
const CONNECTIONS_PER_SHARD_MAX = 16;

/** @param urls `mysql://…` of each shard, always in the same order: the order is the sharding */
export function openShards(urls: readonly string[]): Shards {
  return shardsOf(
    urls.map((uri, number) => ({
      name: `shard-${number}`,
      pool: createPool({ uri, connectionLimit: CONNECTIONS_PER_SHARD_MAX }),
    })),
  );
}

export function shardsOf(all: readonly Shard[]): Shards {
  const at = (number: number): Shard => {
    const shard = all[number % all.length];
    if (shard === undefined) throw new Error('there are no shards');
    return shard;
  };
  return {
    all,
    ofUser: (userId) => at(userId),
    ofValue: (value) => at(createHash('sha256').update(value).digest().readUInt32BE()),
    async close() {
      await Promise.all(all.map(({ pool }) => pool.end()));
    },
  };
}

const USERS_TABLE = `create table if not exists users (
  user_id bigint unsigned not null,
  phone varchar(32) not null,
  email varchar(190) not null,
  identity_card varchar(32) not null,
  primary key (user_id),
  unique key users_email (email)
) engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin`;

const indexTable = (table: string) => `create table if not exists ${table} (
  value varchar(190) not null,
  user_id bigint unsigned not null,
  primary key (value)
) engine = InnoDB default charset = utf8mb4 collate = utf8mb4_bin`;

/** Creates what is missing: every shard has users, index entries, and the two tables of EscrowMQ. */
export async function createTables({ all }: Shards): Promise<void> {
  await Promise.all(
    all.map(async ({ pool }) => {
      await pool.query(USERS_TABLE);
      for (const { table } of INDEXES) await pool.query(indexTable(table));
      await ensureBarrierTable(pool);
      await ensureConsumedTable(pool);
    }),
  );
}

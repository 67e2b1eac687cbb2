import type { RowDataPacket } from 'mysql2/promise';
import { INDEXES, type User } from '../indexes.js';
import type { Shards } from '../shards.js';

/** One row of an index table. */
export interface IndexEntry {
  group: string;
  value: string;
  userId: number;
}

/** Every user of every shard. */
export async function readUsers({ all }: Shards): Promise<User[]> {
  const perShard = await Promise.all(
    all.map(async ({ pool }) => {
      const [rows] = await pool.query<(User & RowDataPacket)[]>(
        'select user_id as userId, phone, email, identity_card as identityCard from users',
      );
      return rows;
    }),
  );
  return perShard.flat();
}

/** Every entry of every index. */
export async function readIndexEntries({ all }: Shards): Promise<IndexEntry[]> {
  const perTable = await Promise.all(
    all.flatMap(({ pool }) =>
      INDEXES.map(async ({ group, table }) => {
        const [rows] = await pool.query<RowDataPacket[]>(`select value, user_id from ${table}`);
        return rows.map((row) => ({
          group,
          value: String(row.value),
          userId: Number(row.user_id),
        }));
      }),
    ),
  );
  return perTable.flat();
}

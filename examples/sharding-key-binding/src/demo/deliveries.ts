import type { Message } from '@escrowmq/consumer';
import type { RowDataPacket } from 'mysql2/promise';
import type { Shard, Shards } from '../shards.js';

/** How often each message came to each consumer group: at least once, and now and then more. */
const DELIVERIES_TABLE = `create table if not exists demo_deliveries (
  consumer_group varchar(64) character set ascii collate ascii_bin not null,
  message_id varchar(64) character set ascii collate ascii_bin not null,
  deliveries int unsigned not null,
  primary key (consumer_group, message_id)
) engine = InnoDB`;

export async function createDeliveriesTable({ all }: Shards): Promise<void> {
  await Promise.all(all.map(({ pool }) => pool.query(DELIVERIES_TABLE)));
}

export async function countDelivery(
  { pool }: Shard,
  { group, id }: Pick<Message, 'group' | 'id'>,
): Promise<void> {
  await pool.execute(
    `insert into demo_deliveries (consumer_group, message_id, deliveries) values (?, ?, 1)
     on duplicate key update deliveries = deliveries + 1`,
    [group, id],
  );
}

/** How many messages a group got more than once, over all groups. */
export async function countRepeated({ all }: Shards): Promise<number> {
  const counts = await Promise.all(
    all.map(async ({ pool }) => {
      const [rows] = await pool.query<RowDataPacket[]>(
        'select count(*) as repeated from demo_deliveries where deliveries > 1',
      );
      return Number(rows[0]?.repeated);
    }),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

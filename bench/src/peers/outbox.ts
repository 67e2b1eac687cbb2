import { randomUUID } from 'node:crypto';
import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';

/*
 * The outbox that teams write by hand: the message is a row beside the business row, in the same
 * local transaction, and a relay publishes what it finds (see outbox-relay.ts).
 *
 * Rows are deleted when they are sent, by both relays: a table that keeps them grows, and needs a
 * second index to find what is left.
 */
const OUTBOX_TABLE_SQL = `create table if not exists outbox (
  id bigint unsigned not null auto_increment primary key,
  message_id char(36) character set ascii collate ascii_bin not null,
  topic varchar(255) not null,
  routing_key varchar(255) not null,
  body blob not null
) engine = InnoDB`;

export interface OutboxMessage {
  topic: string;
  routingKey: string;
  /** Written as JSON. */
  data: unknown;
}

export interface OutboxRow extends RowDataPacket {
  id: number;
  message_id: string;
  topic: string;
  routing_key: string;
  body: Buffer;
}

export async function ensureOutboxTable(pool: Pool): Promise<void> {
  await pool.query(OUTBOX_TABLE_SQL);
}

export async function isOutboxEmpty(pool: Pool): Promise<boolean> {
  const [rows] = await pool.query<RowDataPacket[]>('select 1 from outbox limit 1');
  return rows.length === 0;
}

/** Writes the message in the transaction that is open on `connection`. */
export async function addToOutbox(
  connection: PoolConnection,
  { topic, routingKey, data }: OutboxMessage,
): Promise<void> {
  await connection.execute(
    'insert into outbox (message_id, topic, routing_key, body) values (?, ?, ?, ?)',
    [randomUUID(), topic, routingKey, JSON.stringify(data)],
  );
}

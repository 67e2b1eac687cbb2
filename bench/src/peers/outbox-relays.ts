import type { ConfirmChannel } from 'amqplib';
import type { Pool } from 'mysql2/promise';
import type { OutboxRow } from './outbox.js';

/*
 * Two ways of emptying an outbox. Both read in order, publish with confirms and delete what was
 * confirmed, so both deliver at least once; they differ in how much they do at a time.
 *
 * There is one relay, so reads lock nothing. (Several would need `for update skip locked`, a
 * transaction around each batch, and would lose the order: slower, and bought for availability.)
 */
export interface Outbox {
  pool: Pool;
  channel: ConfirmChannel;
}

/** Rows per read: what the relays of well-known libraries take, 100 to 1,000. */
export const BATCH_ROWS = 500;

/**
 * As a good team writes it: the whole batch is published before the first confirm is waited for,
 * and deleted by one statement.
 * @returns the number of rows sent
 */
export async function relayBatch({ pool, channel }: Outbox): Promise<number> {
  const rows = await readBatch(pool);
  if (rows.length === 0) return 0;
  for (const row of rows) publish(channel, row);
  await channel.waitForConfirms();
  await pool.query('delete from outbox where id in (?)', [rows.map(({ id }) => id)]);
  return rows.length;
}

/**
 * As most write it: a loop over the rows that awaits each step.
 * @returns the number of rows sent
 */
export async function relayOneByOne({ pool, channel }: Outbox): Promise<number> {
  const rows = await readBatch(pool);
  for (const row of rows) {
    publish(channel, row);
    await channel.waitForConfirms();
    await pool.execute('delete from outbox where id = ?', [row.id]);
  }
  return rows.length;
}

async function readBatch(pool: Pool): Promise<OutboxRow[]> {
  const [rows] = await pool.execute<OutboxRow[]>(
    `select id, message_id, topic, routing_key, body from outbox order by id limit ${BATCH_ROWS}`,
  );
  return rows;
}

function publish(channel: ConfirmChannel, row: OutboxRow): void {
  channel.publish(row.topic, row.routing_key, row.body, {
    persistent: true,
    // What nobody is bound for comes back, and the process ends: see outbox-relay.ts.
    mandatory: true,
    messageId: row.message_id,
    contentType: 'application/json',
    type: row.routing_key,
  });
}

import { ensureConsumedTable, type OnceMessage, once } from '@escrowmq/consumer';
import { createPool, type Pool, type PoolConnection } from 'mysql2/promise';
import { z } from 'zod';

/*
 * What a consumer does with a message: nothing, or one row in its database, applied once. That is
 * done by the SDK's `once` or by hand, as it is usually written: the message's id in a table of its
 * own, in the same transaction.
 */
export const Work = z.enum(['nothing', 'byHand', 'once']);

export interface Worker {
  work(message: OnceMessage): Promise<void>;
  close(): Promise<void>;
}

/** @param connections at most in use at a time */
export async function openWorker(
  work: Exclude<z.output<typeof Work>, 'nothing'>,
  database: string,
  connections: number,
): Promise<Worker> {
  const pool = createPool({ uri: database, connectionLimit: connections });
  await pool.query(`create table if not exists parcels (
    id bigint unsigned not null auto_increment primary key,
    note varchar(64) not null
  ) engine = InnoDB`);
  await pool.query(`create table if not exists consumed_by_hand (
    message_id varchar(64) character set ascii collate ascii_bin not null primary key,
    consumed_at datetime(3) not null default current_timestamp(3)
  ) engine = InnoDB`);
  await ensureConsumedTable(pool);
  return {
    work: work === 'once' ? (message) => bySdk(pool, message) : (message) => byHand(pool, message),
    close: () => pool.end(),
  };
}

async function insertParcel(tx: Pick<PoolConnection, 'execute'>): Promise<void> {
  await tx.execute('insert into parcels (note) values (?)', ['packed by hand']);
}

async function bySdk(pool: Pool, message: OnceMessage): Promise<void> {
  const result = await once(pool, message, insertParcel);
  if (result !== 'applied') throw new Error(`message ${message.id} came twice`);
}

async function byHand(pool: Pool, { id }: OnceMessage): Promise<void> {
  const connection = await pool.getConnection();
  try {
    await connection.beginTransaction();
    // A duplicate fails here, and so does the run: none is sent.
    await connection.execute('insert into consumed_by_hand (message_id) values (?)', [id]);
    await insertParcel(connection);
    await connection.commit();
    connection.release();
  } catch (error) {
    connection.destroy();
    throw error;
  }
}

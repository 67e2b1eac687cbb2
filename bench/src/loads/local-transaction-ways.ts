import { setTimeout as pause } from 'node:timers/promises';
import { fromMysql2 } from '@escrowmq/database/mysql2';
import { createProducer, ensureBarrierTable, type LocalDatabase } from '@escrowmq/producer';
import { createPool, type Pool, type PoolConnection } from 'mysql2/promise';
import { z } from 'zod';
import { addToOutbox, ensureOutboxTable, isOutboxEmpty } from '../peers/outbox.js';
import { ROUTING_KEY } from './queue.js';
import { nothingCommitted, PRODUCER_GROUP, registerGroup } from './transactions.js';

/*
 * One piece of business, a row in a table, done in three ways: without any message, with a message
 * in an outbox, and with a message held by EscrowMQ. The statement, the pool and the message are
 * the same in all of them.
 */

export const WaySettings = z.object({
  way: z.enum(['plain', 'outbox', 'escrow']),
  /** URL of the business database. */
  database: z.url(),
  /** `http://127.0.0.1:port`; only `escrow` has one. */
  broker: z.url().optional(),
  /** Of the body of each message. */
  dataBytes: z.number().int(),
});

/** As many connections as one service takes of a server that others use as well. */
const POOL_CONNECTIONS = 32;

export interface Way {
  /**
   * Resolves when a service could answer its caller.
   * @param number goes into the message
   * @param committed called when the local COMMIT was answered
   */
  place(number: number, committed?: () => void): Promise<void>;
  /** Resolves when whoever sends the messages has nothing left to do. */
  idle(): Promise<void>;
  close(): Promise<void>;
}

/** @param topic of the messages, and so the exchange in RabbitMQ */
export async function openWay(settings: z.output<typeof WaySettings>, topic: string): Promise<Way> {
  const pool = createPool({ uri: settings.database, connectionLimit: POOL_CONNECTIONS });
  await pool.query(ORDERS_TABLE_SQL);
  const messageOf = (number: number) => ({
    topic,
    routingKey: ROUTING_KEY,
    data: dataOf(number, settings.dataBytes),
  });
  switch (settings.way) {
    case 'plain':
      return openPlain(pool);
    case 'outbox':
      return openOutbox(pool, messageOf);
    case 'escrow':
      if (settings.broker === undefined) throw new Error('the way "escrow" needs a broker');
      return openEscrow(pool, settings.broker, messageOf);
  }
}

const ORDERS_TABLE_SQL = `create table if not exists orders (
  id bigint unsigned not null auto_increment primary key,
  number int unsigned not null,
  note varchar(64) not null
) engine = InnoDB`;

async function insertOrder(tx: Pick<PoolConnection, 'execute'>, number: number): Promise<void> {
  await tx.execute('insert into orders (number, note) values (?, ?)', [number, 'ordered by phone']);
}

/** Data that are exactly `bytes` long as JSON. */
function dataOf(number: number, bytes: number): MessageData {
  const bare = JSON.stringify({ number, text: '' }).length;
  return { number, text: 'x'.repeat(Math.max(0, bytes - bare)) };
}

/** What arrives at a consumer. */
export interface MessageData {
  number: number;
  text: string;
}

interface Message {
  topic: string;
  routingKey: string;
  data: MessageData;
}

function openPlain(pool: Pool): Way {
  return {
    place: (number, committed) =>
      transact(pool, (connection) => insertOrder(connection, number), committed),
    idle: async () => {},
    close: () => pool.end(),
  };
}

async function openOutbox(pool: Pool, messageOf: (number: number) => Message): Promise<Way> {
  await ensureOutboxTable(pool);
  return {
    place(number, committed) {
      const work = async (connection: PoolConnection) => {
        await insertOrder(connection, number);
        await addToOutbox(connection, messageOf(number));
      };
      return transact(pool, work, committed);
    },
    async idle() {
      // The rows of the last batch go after its last confirm.
      while (!(await isOutboxEmpty(pool))) await pause(POLL_MS);
    },
    close: () => pool.end(),
  };
}

const POLL_MS = 5;

/** A local transaction as everybody writes it. */
async function transact(
  pool: Pool,
  work: (connection: PoolConnection) => Promise<void>,
  committed?: () => void,
): Promise<void> {
  const connection = await pool.getConnection();
  try {
    await connection.beginTransaction();
    await work(connection);
    await connection.commit();
    committed?.();
    connection.release();
  } catch (error) {
    // Closing it rolls back as well; the run has failed anyhow.
    connection.destroy();
    throw error;
  }
}

async function openEscrow(
  pool: Pool,
  broker: string,
  messageOf: (number: number) => Message,
): Promise<Way> {
  await ensureBarrierTable(pool);
  await registerGroup(broker);
  const producer = createProducer({ brokers: [broker], producerGroup: PRODUCER_GROUP });
  const listeners = new WeakMap<object, () => void>();
  const database = watched(fromMysql2(pool), listeners);
  return {
    async place(number, committed) {
      await producer.transaction(database, messageOf(number), (tx) => {
        if (committed !== undefined) listeners.set(tx, committed);
        return insertOrder(tx, number);
      });
    },
    idle: () => nothingCommitted(broker),
    async close() {
      await producer.close();
      await pool.end();
    },
  };
}

/** Calls what `listeners` holds for a transaction, by its handle, as soon as its COMMIT was answered. */
function watched<Tx extends object>(
  database: LocalDatabase<Tx>,
  listeners: WeakMap<object, () => void>,
): LocalDatabase<Tx> {
  return {
    ...database,
    async transaction(work, limits) {
      let tx: object | undefined;
      const result = await database.transaction((open) => {
        tx = open.tx;
        return work(open);
      }, limits);
      if (tx !== undefined) listeners.get(tx)?.();
      return result;
    },
  };
}

import {
  BARRIER_TABLE_SQL,
  type CheckHandler,
  type CheckResponse,
  type Logger,
} from '@escrowmq/producer';
import { createPool, type Pool, type PoolOptions, type RowDataPacket } from 'mysql2/promise';
import { Webhook } from 'standardwebhooks';
import { freshMysqlDatabase } from './servers.js';

/** A producer's own database: a barrier table, and `account (id, phone)` for business rows. */
export interface ProducerDatabase {
  url: string;
  /** For what the test itself asks; the code under test gets pools of its own. */
  observer: Pool;
  pool(options?: PoolOptions): Pool;
  accounts(): Promise<number[]>;
  barrier(id: string): Promise<string | undefined>;
  close(): Promise<void>;
}

export async function startProducerDatabase(url?: string): Promise<ProducerDatabase> {
  const uri = url ?? (await freshMysqlDatabase());
  const pools: Pool[] = [];
  const pool = (options: PoolOptions = {}) => {
    const made = createPool({ uri, connectionLimit: 4, ...options });
    pools.push(made);
    return made;
  };
  const observer = pool();
  await observer.query(BARRIER_TABLE_SQL.mysql);
  await observer.query(
    'create table account (id int primary key, phone varchar(20)) engine=InnoDB',
  );
  return {
    url: uri,
    observer,
    pool,
    async accounts() {
      const [rows] = await observer.query<RowDataPacket[]>('select id from account order by id');
      return rows.map((row) => Number(row.id));
    },
    async barrier(id) {
      const [rows] = await observer.query<RowDataPacket[]>(
        "select decision from escrow_barrier where transaction_id = unhex(replace(?, '-', ''))",
        [id],
      );
      return rows[0]?.decision;
    },
    async close() {
      await Promise.all(pools.map((each) => each.end()));
    },
  };
}

export const SIGNING_SECRET = `whsec_${Buffer.alloc(32, 7).toString('base64')}`;

export interface AskOptions {
  check?: Record<string, unknown>;
  secret?: string;
  signedAt?: Date;
}

/** Asks a handler as the broker does, signed; returns the whole answer. */
export function askWith(
  handler: CheckHandler,
  id: string,
  { check = {}, secret = SIGNING_SECRET, signedAt = new Date() }: AskOptions = {},
): Promise<CheckResponse> {
  const body = JSON.stringify({
    id,
    producerGroup: 'accounts',
    businessKeys: [],
    preparedAt: Date.now(),
    attempt: 1,
    ...check,
  });
  const headers = {
    'webhook-id': `${id}-1`,
    'webhook-timestamp': String(Math.floor(signedAt.getTime() / 1000)),
    'webhook-signature': new Webhook(secret).sign(`${id}-1`, signedAt, body),
  };
  return handler(headers, body);
}

/** The decision alone. */
export async function ask(
  handler: CheckHandler,
  id: string,
  options?: AskOptions,
): Promise<string> {
  const { status, body } = await askWith(handler, id, options);
  if (status !== 200) throw new Error(`the check was answered ${status} ${body}`);
  return JSON.parse(body).decision;
}

export interface Recorded {
  level: 'warn' | 'error';
  fields: Record<string, unknown>;
  message: string;
}

export function recordingLogger(): { logger: Logger; records: Recorded[] } {
  const records: Recorded[] = [];
  const at = (level: Recorded['level']) => (fields: Record<string, unknown>, message: string) =>
    void records.push({ level, fields, message });
  return { logger: { warn: at('warn'), error: at('error') }, records };
}

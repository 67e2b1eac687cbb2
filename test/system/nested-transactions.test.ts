import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  ensureConsumedTable,
  ensureLatestTable,
  latest,
  once,
  onceBatch,
} from '@escrowmq/consumer';
import { fromMysql2 } from '@escrowmq/database/mysql2';
import { fromSqlite, type SqliteConnection } from '@escrowmq/database/sqlite';
import { createProducer, ensureOutboxTable, type Producer } from '@escrowmq/producer';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { createPool, type Pool } from 'mysql2/promise';
import { openSqlite } from '../support/producer-layers/better-sqlite3.js';
import { newTransactionId } from '../support/publish.js';
import { freshMysqlDatabase } from '../support/servers.js';

/*
 * N12. What looks like a part of a transaction and is none: one that is begun inside the callback of
 * another. In outbox mode, which needs no broker.
 */
let pool: Pool;
let producer: Producer;

const message = () => ({ id: `${newTransactionId()}-0`, group: 'index' });
const topic = { topic: 'user', data: { id: 1 } };
const REFUSED = {
  code: 'TRANSACTION_MISUSED',
  message: expect.stringMatching(/inside the callback of .* would be a transaction of its own/),
};

beforeAll(async () => {
  const url = await freshMysqlDatabase();
  pool = createPool({ uri: url, connectionLimit: 4 });
  await Promise.all([ensureConsumedTable(pool), ensureLatestTable(pool), ensureOutboxTable(pool)]);
  producer = createProducer({
    brokers: ['http://127.0.0.1:1'],
    producerGroup: 'accounts',
    outbox: true,
    logger: { warn() {}, error() {} },
  });
});

afterAll(async () => {
  await producer.close();
  await pool.end();
});

const countOf = async (id: string) => {
  const [rows] = await pool.query('select * from escrow_consumed where message_id = ?', [id]);
  return (rows as unknown[]).length;
};

describe('N12: a transaction inside the callback of another', () => {
  test.each<[string, () => Promise<unknown>]>([
    ['transaction', () => producer.transaction(pool, topic, async (tx) => tx.query('do 0'))],
    ['once', () => once(pool, message(), async () => undefined)],
    ['latest', () => latest(pool, message(), { key: 'a', at: 1 }, async () => undefined)],
    ['onceBatch', () => onceBatch(pool, [message()], async () => undefined)],
    [
      'once through another adapter',
      () => once(fromMysql2(pool), message(), async () => undefined),
    ],
  ])(
    '%s is refused, on the same database, inside once and inside transaction',
    async (_, inner) => {
      const outer = message();
      await expect(once(pool, outer, inner)).rejects.toMatchObject(REFUSED);
      expect(await countOf(outer.id)).toBe(0);
      await expect(producer.transaction(pool, topic, inner)).rejects.toMatchObject(REFUSED);
    },
  );

  test('one that says it is separate commits by itself', async () => {
    const inner = message();
    const separate = once(pool, message(), async () => {
      await once(pool, inner, async (tx) => tx.query('do 0'), { separate: true });
      throw new Error('of the outer one');
    });
    await expect(separate).rejects.toThrow('of the outer one');
    expect(await countOf(inner.id)).toBe(1);
  });

  test('one on another database, beside it, or begun inside and run later, is none', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'escrow-nested-'));
    const other = fromSqlite(
      () => openSqlite(join(folder, 'other.db')) as unknown as SqliteConnection,
    );
    await ensureConsumedTable(other);
    let release = () => {};
    const later = new Promise<void>((resolve) => {
      release = resolve;
    });
    let begunInside: Promise<unknown> = Promise.resolve();
    const results = await Promise.all([
      once(pool, message(), async (tx) => {
        begunInside = later.then(() => once(pool, message(), async () => tx));
        await once(other, message(), async (inner) => inner.exec('select 1'));
      }),
      once(pool, message(), async (tx) => tx.query('do 0')),
    ]);
    expect(results).toEqual(['applied', 'applied']);
    release();
    expect(await begunInside).toBe('applied');
    await rm(folder, { recursive: true, force: true });
  });
});

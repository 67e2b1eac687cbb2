import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { startPrivateMysql } from '@escrowmq/local-servers';
import {
  type CheckHandlerOptions,
  createCheckHandler,
  ensureBarrierTable,
  nodeCheckListener,
  purgeBarrier,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { Pool, PoolConnection, PoolOptions, RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';

const DAY_MS = 24 * 60 * 60 * 1000;
const { logger, records } = recordingLogger();
let database: ProducerDatabase;
let id: string;

beforeAll(async () => {
  database = await startProducerDatabase();
});
afterAll(() => database.close());
beforeEach(() => {
  id = uuidv7();
  records.length = 0;
});

const handlerOf = (pool: Pool, options: Partial<CheckHandlerOptions> = {}) =>
  createCheckHandler({ signingSecret: SIGNING_SECRET, database: pool, logger, ...options });

/** What a local transaction writes. */
const writeCommit = (connection: Pool | PoolConnection) =>
  connection.query(
    "insert into escrow_barrier values (unhex(replace(?, '-', '')), 'commit', utc_timestamp(3), null)",
    [id],
  );

/** Runs `during` while a local transaction is open, and then ends it. */
async function whileOpen<T>(end: 'commit' | 'rollback', during: () => Promise<T>): Promise<T> {
  const connection = await database.observer.getConnection();
  try {
    await connection.beginTransaction();
    await writeCommit(connection);
    return await during();
  } finally {
    await connection.query(end);
    connection.release();
  }
}

async function sessionOf(pool: Pool) {
  const [rows] = await pool.query<RowDataPacket[]>(
    'select @@session.innodb_lock_wait_timeout as lockWait, @@session.autocommit as autocommit',
  );
  return rows[0];
}

test('a check that finds no row decides rollback, and says so ever after', async () => {
  const handler = handlerOf(database.pool());
  expect(await ask(handler, id)).toBe('rollback');
  expect(await database.barrier(id)).toBe('rollback');
  expect(await ask(handler, id)).toBe('rollback');
  await expect(writeCommit(database.observer)).rejects.toMatchObject({ errno: 1062 });
});

test('a check of a committed transaction answers commit, and says so ever after', async () => {
  const handler = handlerOf(database.pool());
  await writeCommit(database.observer);
  expect(await ask(handler, id)).toBe('commit');
  expect(await ask(handler, id)).toBe('commit');
});

test.each([
  ['commit', 'commit'],
  ['rollback', 'rollback'],
] as const)(
  'a check waits a second for an open transaction, answers unknown, and %s after its end',
  async (end, decision) => {
    const handler = handlerOf(database.pool());
    const startedAt = performance.now();
    expect(await whileOpen(end, () => ask(handler, id))).toBe('unknown');
    const tookMs = performance.now() - startedAt;
    expect(tookMs).toBeGreaterThan(800);
    expect(records[0]?.fields.reason).toMatch(/still open/);
    expect(await ask(handler, id)).toBe(decision);
  },
);

test('the connection goes back with its settings as they were, also after a lock wait', async () => {
  const pool = database.pool({ connectionLimit: 1 });
  await pool.query('set session innodb_lock_wait_timeout = 17, session autocommit = 0');
  const handler = handlerOf(pool);
  expect(await whileOpen('commit', () => ask(handler, id))).toBe('unknown');
  expect(await sessionOf(pool)).toEqual({ lockWait: 17, autocommit: 0 });
  await pool.query('rollback');
  expect(await ask(handler, id)).toBe('commit');
  expect(await sessionOf(pool)).toEqual({ lockWait: 17, autocommit: 0 });
});

test('a decision is durable at once, also on a connection without autocommit', async () => {
  const pool = database.pool({ connectionLimit: 1 });
  await pool.query('set session autocommit = 0');
  expect(await ask(handlerOf(pool), id)).toBe('rollback');
  expect(await database.barrier(id)).toBe('rollback');
});

test('a transaction that somebody left open on the connection is not committed by a check', async () => {
  const pool = database.pool({ connectionLimit: 1 });
  await pool.query('set session autocommit = 0');
  await pool.query('insert into account (id) values (99)');
  expect(await ask(handlerOf(pool), id)).toBe('rollback');
  expect(await database.accounts()).toEqual([]);
});

/** A pool whose connections run `after` once an INSERT has failed. */
function interrupted(pool: Pool, after: () => Promise<unknown>): Pool {
  const getConnection = async () => {
    const connection = await pool.getConnection();
    const query = async (...args: Parameters<PoolConnection['query']>) => {
      try {
        return await connection.query(...args);
      } catch (error) {
        await after();
        throw error;
      }
    };
    return Object.assign(Object.create(connection), {
      query,
      release: () => connection.release(),
      destroy: () => connection.destroy(),
    });
  };
  return Object.assign(Object.create(pool), { getConnection });
}

test('a duplicate key whose row is gone a moment later is unknown', async () => {
  await writeCommit(database.observer);
  const pool = interrupted(database.pool(), () =>
    database.observer.query('delete from escrow_barrier'),
  );
  expect(await ask(handlerOf(pool), id)).toBe('unknown');
  expect(records[0]?.fields.reason).toMatch(/no row/);
});

test('a check for a transaction older than the barrier rows inserts nothing and answers unknown (F13)', async () => {
  const handler = handlerOf(database.pool(), { barrierRetentionMs: 3 * DAY_MS });
  const old = { check: { preparedAt: Date.now() - 2 * DAY_MS - 1_000 } };
  expect(await ask(handler, id, old)).toBe('unknown');
  expect(await database.barrier(id)).toBeUndefined();
  const younger = { check: { preparedAt: Date.now() - 2 * DAY_MS + 60_000 } };
  expect(await ask(handler, id, younger)).toBe('rollback');
});

test('a check goes to the database that its context names, and to no other', async () => {
  const pool = database.pool();
  const sharded = createCheckHandler({
    signingSecret: SIGNING_SECRET,
    databases: { 'shard-3': pool },
    logger,
  });
  const named = (checkContext: string) => ({ check: { checkContext } });
  for (const context of ['shard-4', '__proto__', 'toString', '']) {
    expect(await ask(sharded, id, named(context))).toBe('unknown');
  }
  expect(await ask(sharded, id)).toBe('unknown');
  expect(await ask(handlerOf(pool), id, named('shard-3'))).toBe('unknown');
  expect(records).toHaveLength(6);
  expect(await database.barrier(id)).toBeUndefined();
  expect(await ask(sharded, id, named('shard-3'))).toBe('rollback');
});

test('a pool without a free connection is unknown within the limit, and nothing leaks', async () => {
  const pool = database.pool({ connectionLimit: 1 });
  const held = await pool.getConnection();
  const handler = handlerOf(pool, { answerTimeoutMs: 100 });
  for (let asked = 0; asked < 100; asked += 10) {
    const answers = Array.from({ length: 10 }, () => ask(handler, uuidv7()));
    expect(new Set(await Promise.all(answers))).toEqual(new Set(['unknown']));
  }
  held.release();
  expect(await ask(handlerOf(pool), id)).toBe('rollback');
});

test('a missing table, no rights and a database that is down are unknown (F38)', async () => {
  const down: PoolOptions = { uri: 'mysql://escrow:escrow@127.0.0.1:1/escrow' };
  for (const options of [{ database: 'mysql' }, { database: 'information_schema' }, down]) {
    expect(await ask(handlerOf(database.pool(options)), id)).toBe('unknown');
  }
});

test('a refused check leaves its connection as it was, and one that hangs is closed', async () => {
  const refused = database.pool({ database: 'mysql', connectionLimit: 1 });
  await refused.query('set session innodb_lock_wait_timeout = 17');
  expect(await ask(handlerOf(refused), id)).toBe('unknown');
  expect((await sessionOf(refused))?.lockWait).toBe(17);

  const hanging = database.pool({ connectionLimit: 1 });
  await hanging.query('set session innodb_lock_wait_timeout = 17');
  await whileOpen('rollback', async () => {
    expect(await ask(handlerOf(hanging, { answerTimeoutMs: 300 }), id)).toBe('unknown');
  });
  // A new connection, with the server's default.
  expect((await sessionOf(hanging))?.lockWait).toBe(50);
});

test('a read-only database is no primary: unknown, even for a user who may write to it (F19)', async () => {
  const replica = await startPrivateMysql();
  const there = await startProducerDatabase(await replica.createDatabase());
  try {
    await there.observer.query('set global read_only = 1');
    expect(await ask(handlerOf(there.pool()), id)).toBe('unknown');
    expect(await there.barrier(id)).toBeUndefined();
    await there.observer.query('set global read_only = 0');
    expect(await ask(handlerOf(there.pool()), id)).toBe('rollback');
  } finally {
    await there.close();
    await replica.remove();
  }
});

test('the barrier table is made once, and purged by age', async () => {
  await ensureBarrierTable(database.observer);
  await ensureBarrierTable(database.observer);
  await database.observer.query('delete from escrow_barrier');
  const values = Array.from({ length: 1_500 }, (_, row) => [
    Buffer.from(uuidv7().replaceAll('-', ''), 'hex'),
    'commit',
    new Date(Date.now() - (row < 1_200 ? 8 : 6) * DAY_MS)
      .toISOString()
      .slice(0, 23)
      .replace('T', ' '),
  ]);
  await database.observer.query(
    'insert into escrow_barrier (transaction_id, decision, created_at) values ?',
    [values],
  );
  expect(await purgeBarrier(database.observer)).toBe(1_200);
  expect(await purgeBarrier(database.observer)).toBe(0);
  await expect(purgeBarrier(database.observer, DAY_MS)).rejects.toMatchObject({
    code: 'INVALID_CONFIGURATION',
  });
});

const servers: http.Server[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

test('node:http serves checks: unsigned is 401, too large is 413, GET is 404', async () => {
  const handler = handlerOf(database.pool());
  const server = http.createServer(nodeCheckListener(handler, { logger }));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const send = (method: string, body = '') =>
    new Promise<number | undefined>((resolve, reject) => {
      const request = http.request({ port, method, host: '127.0.0.1' }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('error', reject);
      request.end(body);
    });
  expect(await send('POST', '{}')).toBe(401);
  expect(await send('POST', 'x'.repeat(40_000))).toBe(413);
  expect(await send('GET')).toBe(404);
});

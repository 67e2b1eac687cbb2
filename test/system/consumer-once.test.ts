import { setTimeout as pause } from 'node:timers/promises';
import { ensureConsumedTable, once, purgeConsumed } from '@escrowmq/consumer';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createPool, type Pool, type PoolConnection, type RowDataPacket } from 'mysql2/promise';
import { openBench } from '../support/consumer-bench.js';
import { newTransactionId, publish } from '../support/publish.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

let pool: Pool;
const group = 'phone-index';
const newMessage = () => ({ id: `${newTransactionId()}-0`, group });

beforeAll(async () => {
  // Three connections: one that is not given back stops the tests soon.
  pool = createPool({ uri: await freshMysqlDatabase(), connectionLimit: 3 });
  await ensureConsumedTable(pool);
  await pool.query('create table accounts (id int primary key, balance int not null)');
});
afterAll(() => pool.end());

beforeEach(async () => {
  await pool.query('truncate accounts');
  await pool.query('insert into accounts values (1, 0), (2, 0)');
});

const add = (on: Pool | PoolConnection, id: number, sum = 1) =>
  on.execute('update accounts set balance = balance + ? where id = ?', [sum, id]);

async function balance(id: number): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>('select balance from accounts where id = ?', [
    id,
  ]);
  return rows[0]!.balance;
}

async function consumedRows(messageId: string): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>(
    'select * from escrow_consumed where consumer_group = ? and message_id = ?',
    [group, messageId],
  );
  return rows.length;
}

/** The pool gives back what it was given: no transaction is open on any connection. */
async function expectCleanPool(): Promise<void> {
  const connections = await Promise.all([1, 2, 3].map(() => pool.getConnection()));
  try {
    for (const connection of connections) {
      const [rows] = await connection.query<RowDataPacket[]>(
        `select @@autocommit as autocommit, (select count(*) from information_schema.innodb_trx
         where trx_mysql_thread_id = connection_id()) as open`,
      );
      expect(rows[0]).toEqual({ autocommit: 1, open: 0 });
    }
  } finally {
    for (const connection of connections) connection.release();
  }
}

test('work is applied once, and a second time is a duplicate', async () => {
  const message = newMessage();
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('applied');
  await expectCleanPool();
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('duplicate');
  expect(await balance(1)).toBe(1);
  await expectCleanPool();
});

test('two groups apply the same message each for itself', async () => {
  const message = newMessage();
  await once(pool, message, (tx) => add(tx, 1));
  expect(await once(pool, { ...message, group: 'other' }, (tx) => add(tx, 1))).toBe('applied');
  expect(await once(pool, { ...message, group: 'Other' }, (tx) => add(tx, 1))).toBe('applied');
  expect(await balance(1)).toBe(3);
});

test('of two instances with the same message one waits and finds a duplicate', async () => {
  const message = newMessage();
  let running = 0;
  const work = async (tx: PoolConnection) => {
    running += 1;
    expect(running).toBe(1);
    await add(tx, 1);
    // Gives the other one every chance to come in.
    await pause(100);
    running -= 1;
  };
  const results = await Promise.all([once(pool, message, work), once(pool, message, work)]);
  expect(results.sort()).toEqual(['applied', 'duplicate']);
  expect(await balance(1)).toBe(1);
});

test('when the first of two instances fails, the waiting one applies the message', async () => {
  const message = newMessage();
  let calls = 0;
  const work = async (tx: PoolConnection) => {
    calls += 1;
    await add(tx, 1);
    await pause(100);
    if (calls === 1) throw new Error('the first fails');
  };
  const results = await Promise.allSettled([once(pool, message, work), once(pool, message, work)]);
  expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
  expect(await balance(1)).toBe(1);
  expect(await consumedRows(message.id)).toBe(1);
});

test('work that throws leaves nothing behind, and the next attempt applies it', async () => {
  const message = newMessage();
  const failing = once(pool, message, async (tx) => {
    await add(tx, 1);
    throw new TypeError('broken');
  });
  await expect(failing).rejects.toThrow(new TypeError('broken'));
  expect(await balance(1)).toBe(0);
  expect(await consumedRows(message.id)).toBe(0);
  await expectCleanPool();
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('applied');
});

/** Makes `tx` the victim of a deadlock with a heavier transaction, and returns its error. */
async function deadlock(tx: PoolConnection): Promise<unknown> {
  const rival = await pool.getConnection();
  try {
    await rival.beginTransaction();
    // InnoDB rolls back the transaction that changed fewer rows.
    await rival.query('insert into accounts values (11, 0), (12, 0), (13, 0), (14, 0), (15, 0)');
    await add(rival, 2);
    await add(tx, 1);
    const rivalWaits = add(rival, 1);
    const error = await add(tx, 2).then(
      () => undefined,
      (reason) => reason,
    );
    await rivalWaits;
    await rival.rollback();
    return error;
  } finally {
    rival.destroy();
  }
}

test('a deadlock that the work lets pass is thrown, and nothing was applied', async () => {
  const message = newMessage();
  const failing = once(pool, message, async (tx) => {
    throw await deadlock(tx);
  });
  await expect(failing).rejects.toMatchObject({ errno: 1213 });
  expect(await consumedRows(message.id)).toBe(0);
  await expectCleanPool();
});

test('work that swallowed a deadlock and went on is rolled back to the last statement', async () => {
  const message = newMessage();
  const swallowing = once(pool, message, async (tx) => {
    expect(await deadlock(tx)).toMatchObject({ errno: 1213 });
    await add(tx, 2, 10);
  });
  await expect(swallowing).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
  expect([await balance(1), await balance(2)]).toEqual([0, 0]);
  expect(await consumedRows(message.id)).toBe(0);
  await expectCleanPool();
});

test.each([
  ['commits', (tx: PoolConnection) => tx.commit()],
  ['rolls back', (tx: PoolConnection) => tx.rollback()],
  ['begins another transaction', (tx: PoolConnection) => tx.beginTransaction()],
  ['changes the schema', (tx: PoolConnection) => tx.query('create table if not exists t (n int)')],
])('work that %s by itself is refused', async (_does, misuse) => {
  const refused = once(pool, newMessage(), async (tx) => {
    await misuse(tx);
    await add(tx, 2);
  });
  await expect(refused).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
  expect(await balance(2)).toBe(0);
  await expectCleanPool();
});

test('a connection that dies during the work is not given back to the pool', async () => {
  const message = newMessage();
  for (let round = 0; round < 4; round += 1) {
    const failing = once(pool, message, async (tx) => {
      await add(tx, 1);
      await pool.query('kill ?', [tx.threadId]);
      await add(tx, 1);
    });
    await expect(failing).rejects.toThrow();
  }
  await until('the server has rolled back', async () => (await balance(1)) === 0);
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('applied');
  await expectCleanPool();
});

test('when the answer to COMMIT is lost the outcome is unknown, and the next attempt is told', async () => {
  const message = newMessage();
  const lost = once(pool, message, async (tx) => {
    await add(tx, 1);
    const query = tx.query.bind(tx);
    // The wire, cut after COMMIT has arrived and before its answer is read.
    tx.query = (async (sql: string) => {
      const result = await query(sql);
      if (sql === 'commit') {
        tx.destroy();
        throw Object.assign(new Error('Connection lost'), { code: 'PROTOCOL_CONNECTION_LOST' });
      }
      return result;
    }) as typeof tx.query;
  });
  await expect(lost).rejects.toMatchObject({ code: 'OUTCOME_UNKNOWN' });
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('duplicate');
  expect(await balance(1)).toBe(1);
});

test('work that ends after its handler ran out of time is rolled back', async () => {
  const controller = new AbortController();
  const message = { ...newMessage(), signal: controller.signal };
  const late = once(pool, message, async (tx) => {
    await add(tx, 1);
    controller.abort(new Error('too late'));
  });
  await expect(late).rejects.toThrow('too late');
  expect(await balance(1)).toBe(0);
  await expect(once(pool, message, (tx) => add(tx, 1))).rejects.toThrow('too late');
  await expectCleanPool();
});

test('an id that is not a message id is refused before anything is touched', async () => {
  const refused = once(pool, { id: 'order-7', group }, (tx) => add(tx, 1));
  await expect(refused).rejects.toMatchObject({ code: 'INVALID_ID' });
});

test('purging deletes what is older than that and nothing else', async () => {
  const message = newMessage();
  await once(pool, message, (tx) => add(tx, 1));
  const dayAgo = Date.now() - 24 * 3_600_000;
  const old = Array.from({ length: 2500 }, (_, n) => [group, `old-${n}`, dayAgo]);
  await pool.query('insert into escrow_consumed values ?', [old]);
  expect(await purgeConsumed(pool)).toBe(0);
  expect(await purgeConsumed(pool, 3_600_000)).toBe(2500);
  expect(await consumedRows(message.id)).toBe(1);
  await expect(purgeConsumed(pool, Number.NaN)).rejects.toMatchObject({
    code: 'INVALID_CONFIGURATION',
  });
});

test('a message delivered twice to a subscription is applied once and acknowledged twice', async () => {
  const bench = await openBench(rabbitmqUrl());
  try {
    const results: string[] = [];
    const { topic } = bench;
    await bench.consumer.subscribe<number>({ topic, group: bench.group }, async (message) => {
      results.push(await once(pool, message, (tx) => add(tx, 1, message.data)));
    });
    const transactionId = newTransactionId();
    for (let repeat = 0; repeat < 2; repeat += 1) {
      await publish(bench.channel, { topic, transactionId, data: 5 });
    }
    await until('both were handled', () => results.length === 2);
    expect(results.sort()).toEqual(['applied', 'duplicate']);
    expect(await balance(1)).toBe(5);
  } finally {
    await bench.close();
  }
});

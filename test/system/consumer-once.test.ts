import {
  ensureConsumedTable,
  ensureLatestTable,
  latest,
  once,
  onceBatch,
} from '@escrowmq/consumer';
import { afterAll, beforeAll, beforeEach, expect, test } from '@jest/globals';
import { createPool, type Pool, type PoolConnection, type RowDataPacket } from 'mysql2/promise';
import { openBench } from '../support/consumer-bench.js';
import { newTransactionId, publish } from '../support/publish.js';
import { deferred } from '../support/ready.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * What does not depend on the data layer, and what a pool of mysql2 shows of itself; what holds for
 * every layer is in consumer-database-suite.ts.
 */

let uri: string;
let pool: Pool;
const group = 'phone-index';
const newMessage = () => ({ id: `${newTransactionId()}-0`, group });
const CONNECTIONS = 3;

beforeAll(async () => {
  // Few connections: one that is not given back stops the tests soon.
  uri = await freshMysqlDatabase();
  pool = createPool({ uri, connectionLimit: CONNECTIONS });
  await ensureConsumedTable(pool);
  await ensureLatestTable(pool);
  await pool.query('create table accounts (id int primary key, balance int not null)');
});
afterAll(() => pool.end());

beforeEach(async () => {
  await pool.query('truncate accounts');
  await pool.query('insert into accounts values (1, 0), (2, 0)');
});

type Tx = Pick<PoolConnection, 'execute' | 'query'>;

const add = (on: Tx, id: number, sum = 1) =>
  on.execute('update accounts set balance = balance + ? where id = ?', [sum, id]);

async function balance(id: number): Promise<number> {
  const [rows] = await pool.query<RowDataPacket[]>('select balance from accounts where id = ?', [
    id,
  ]);
  return rows[0]!.balance;
}

/** The pool gives back what it was given: no transaction is open on any connection. */
async function expectCleanPool(): Promise<void> {
  const connections = await Promise.all(
    Array.from({ length: CONNECTIONS }, () => pool.getConnection()),
  );
  try {
    for (const connection of connections) {
      const [rows] = await connection.query<RowDataPacket[]>('select @@autocommit as autocommit');
      expect(rows[0]).toEqual({ autocommit: 1 });
      // Refused inside a transaction. What information_schema tells is of 100 ms ago, where another
      // test has just asked.
      await connection.query('set transaction read write');
    }
  } finally {
    for (const connection of connections) connection.release();
  }
}

test('whatever becomes of a message, its connection is clean afterwards', async () => {
  const message = newMessage();
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('applied');
  await expectCleanPool();
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('duplicate');
  await expectCleanPool();
  const failing = once(pool, newMessage(), async (tx) => {
    await add(tx, 1);
    throw new TypeError('broken');
  });
  await expect(failing).rejects.toThrow(new TypeError('broken'));
  await expectCleanPool();
  const ended = once(pool, newMessage(), (tx) => tx.query('create table if not exists t (n int)'));
  await expect(ended).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
  await expectCleanPool();
  expect(await balance(1)).toBe(1);
});

test('a transaction of once is four statements: begin, the note, the work, commit', async () => {
  const sent: string[] = [];
  const watched: Pick<Pool, 'getConnection'> = {
    async getConnection() {
      const connection = await pool.getConnection();
      return new Proxy(connection, {
        get(target, name) {
          const value: unknown = Reflect.get(target, name, target);
          if (typeof value !== 'function') return value;
          return (...args: unknown[]) => {
            if (name === 'query' || name === 'execute') sent.push(String(args[0]).slice(0, 17));
            return Reflect.apply(value, target, args);
          };
        },
      });
    },
  };
  await once(watched, newMessage(), (tx) => add(tx, 1));
  expect(sent).toEqual(['start transaction', 'insert into escro', 'update accounts s', 'commit']);
});

/** Makes `tx` the victim of a deadlock with a heavier transaction, and returns its error. */
async function deadlock(tx: Tx): Promise<unknown> {
  const rival = await pool.getConnection();
  try {
    await rival.beginTransaction();
    // InnoDB rolls back the transaction that changed fewer rows.
    await rival.query('insert into accounts values (11, 0), (12, 0), (13, 0), (14, 0), (15, 0)');
    await add(rival, 2);
    await add(tx, 1);
    const rivalWaits = add(rival, 1);
    const error = await add(tx, 2).catch((reason: unknown) => reason);
    await rivalWaits;
    await rival.rollback();
    return error;
  } finally {
    rival.destroy();
  }
}

test('what work that swallowed a deadlock sends next does not stand alone', async () => {
  const message = newMessage();
  const swallowing = once(pool, message, async (tx) => {
    expect(await deadlock(tx)).toMatchObject({ errno: 1213 });
    await add(tx, 2, 10).catch(() => undefined);
  });
  await expect(swallowing).rejects.toMatchObject({
    code: 'TRANSACTION_MISUSED',
    details: { outcome: 'rollback' },
  });
  expect([await balance(1), await balance(2)]).toEqual([0, 0]);
  await expectCleanPool();
});

test('work that did not await a statement is refused and rolled back', async () => {
  let floating: Promise<unknown> = Promise.resolve();
  const hasty = once(pool, newMessage(), async (tx) => {
    floating = add(tx, 1);
  });
  await expect(hasty).rejects.toMatchObject({
    code: 'TRANSACTION_MISUSED',
    message: expect.stringContaining('await every statement'),
  });
  await floating;
  expect(await balance(1)).toBe(0);
  await expectCleanPool();
});

test('a connection that dies during the work is not given back to the pool', async () => {
  const message = newMessage();
  for (let round = 0; round < CONNECTIONS + 1; round += 1) {
    const failing = once(pool, message, async (tx) => {
      await add(tx, 1);
      const [rows] = await tx.query<RowDataPacket[]>('select connection_id() as id');
      await pool.query('kill ?', [rows[0]!.id]);
      await add(tx, 1);
    });
    await expect(failing).rejects.toThrow();
  }
  await until('the server has rolled back', async () => (await balance(1)) === 0);
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('applied');
  await expectCleanPool();
});

test('without a free connection nothing is applied, and one that comes late is given back', async () => {
  const held = await Promise.all(Array.from({ length: CONNECTIONS }, () => pool.getConnection()));
  const message = newMessage();
  const late = once(pool, message, (tx) => add(tx, 1), { connectionTimeoutMs: 50 });
  await expect(late).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
  for (const connection of held) connection.release();
  await expectCleanPool();
  expect(await once(pool, message, (tx) => add(tx, 1))).toBe('applied');
});

test.each(['read committed', 'repeatable read', 'serializable', 'read uncommitted'])(
  'under %s ten instances with one message, one object and one batch apply each once',
  async (isolation) => {
    const own = createPool({ uri, connectionLimit: 10 });
    own.on('connection', (connection) => {
      connection.query(`set session transaction isolation level ${isolation}`);
    });
    try {
      const message = newMessage();
      const batch = [newMessage(), newMessage(), newMessage()];
      const key = message.id;
      const all = Array.from({ length: 10 }, async (_, n) => [
        await once(own, message, (tx) => add(tx, 1)),
        await latest(own, newMessage(), { key, at: n }, (tx) =>
          tx.query('update accounts set balance = ? where id = 2', [n]),
        ),
        await onceBatch(own, n % 2 === 0 ? batch : [...batch].reverse(), (tx, fresh) =>
          add(tx, 1, 10 * fresh.length),
        ),
      ]);
      await Promise.all(all);
      expect([await balance(1), await balance(2)]).toEqual([31, 9]);
    } finally {
      await own.end();
    }
  },
);

test.each([
  [
    'an id that is not a message id',
    () => once(pool, { id: 'order-7', group }, add1),
    'INVALID_ID',
  ],
  ['a name of no group', () => once(pool, { ...newMessage(), group: 'a b' }, add1), 'INVALID_NAME'],
  [
    'a timeout of 0',
    () => once(pool, newMessage(), add1, { commitTimeoutMs: 0 }),
    'INVALID_CONFIGURATION',
  ],
  ['an empty key', () => latest(pool, newMessage(), { key: '', at: 1 }, add1), 'INVALID_REQUEST'],
  [
    'a key of 256 bytes',
    () => latest(pool, newMessage(), { key: 'ä'.repeat(128), at: 1 }, add1),
    'INVALID_REQUEST',
  ],
  [
    'half a character',
    () => latest(pool, newMessage(), { key: '\ud800', at: 1 }, add1),
    'INVALID_REQUEST',
  ],
  [
    'a fraction of a time',
    () => latest(pool, newMessage(), { key: 'a', at: 0.5 }, add1),
    'INVALID_REQUEST',
  ],
  [
    'a date',
    () => latest(pool, newMessage(), { key: 'a', at: new Date() as never }, add1),
    'INVALID_REQUEST',
  ],
  [
    'a batch of two groups',
    () => onceBatch(pool, [newMessage(), { ...newMessage(), group: 'other' }], add1),
    'INVALID_REQUEST',
  ],
])('%s is refused before anything is touched', async (_what, call, code) => {
  await expect(call()).rejects.toMatchObject({ code });
  expect(await balance(1)).toBe(0);
});

const add1 = (tx: Tx) => add(tx, 1);

test('a key of 255 bytes is one', async () => {
  const key = 'x'.repeat(255);
  expect(await latest(pool, newMessage(), { key, at: 1 }, add1)).toBe('applied');
});

test('a batch of nothing is applied without a connection', async () => {
  expect(await onceBatch(pool, [], add1)).toEqual({ applied: [], duplicates: [] });
});

test('a batch is given up when one of its signals aborts', async () => {
  const controllers = [new AbortController(), new AbortController()];
  const messages = controllers.map(({ signal }) => ({ ...newMessage(), signal }));
  const begun = deferred();
  const hanging = onceBatch(pool, messages, async (tx) => {
    await add(tx, 1);
    begun.resolve();
    await new Promise(() => {});
  });
  await begun.promise;
  controllers[1]!.abort(new Error('out of time'));
  await expect(hanging).rejects.toThrow('out of time');
  expect(await balance(1)).toBe(0);
  await expectCleanPool();
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

test('a message of which a part was committed is a dead letter at once, and no duplicate', async () => {
  const bench = await openBench(rabbitmqUrl());
  try {
    const { topic } = bench;
    await bench.consumer.subscribe({ topic, group: bench.group }, (message) =>
      once(pool, message, async (tx) => {
        await add(tx, 1);
        await tx.query('create table if not exists t (n int)');
        await add(tx, 2);
      }),
    );
    await publish(bench.channel, { topic });
    await bench.takeDeadLetter();
    expect(await bench.event('deadLettered')).toMatchObject({
      reason: 'permanent',
      cause: expect.stringContaining('ended inside its work'),
    });
    expect(await balance(1)).toBe(1);
  } finally {
    await bench.close();
  }
});

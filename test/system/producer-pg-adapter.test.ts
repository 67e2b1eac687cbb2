import { fromPg, type PgTransaction } from '@escrowmq/database/pg';
import {
  createCheckHandler,
  createProducer,
  ensureBarrierTable,
  type Producer,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import pg from 'pg';
import { uuidv7 } from 'uuidv7';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';
import { freshPostgresDatabase } from '../support/servers.js';
import { until } from '../support/until.js';

const message = { topic: 'user', data: 7 };
const { logger } = recordingLogger();
let url: string;
let observer: pg.Pool;
let pool: pg.Pool;
let broker: FakeBroker;
let producer: Producer;

beforeAll(async () => {
  url = await freshPostgresDatabase();
  observer = poolOf(4);
  await ensureBarrierTable(fromPg(observer));
  await observer.query('create table account (id int primary key, phone text)');
  await observer.query(
    'create table pet (owner int references account (id) deferrable initially deferred)',
  );
});
afterAll(() => observer.end());

beforeEach(async () => {
  await observer.query('delete from pet');
  await observer.query('delete from account');
  pool = poolOf(2);
  broker = await startFakeBroker();
  producer = createProducer({ brokers: [broker.address], producerGroup: 'accounts', logger });
});
afterEach(async () => {
  await producer.close();
  await broker.close();
  await pool.end();
});

function poolOf(max: number): pg.Pool {
  const made = new pg.Pool({ connectionString: url, max });
  // Tests end connections, some of which lie idle then.
  made.on('error', () => {});
  return made;
}

const checkOf = (database: pg.Pool) =>
  createCheckHandler({ signingSecret: SIGNING_SECRET, database: fromPg(database), logger });

const insert = (tx: PgTransaction, id: number) =>
  tx.query('insert into account (id) values ($1)', [id]);

async function accounts(): Promise<number[]> {
  const { rows } = await observer.query('select id from account order by id');
  return rows.map(({ id }) => id);
}

const run = <T>(callback: (tx: PgTransaction) => Promise<T>) =>
  producer.transaction(fromPg(pool), message, callback);

const failureOf = (callback: (tx: PgTransaction) => Promise<unknown>): Promise<unknown> =>
  run(callback).then(
    () => {
      throw new Error('it succeeded');
    },
    (error: unknown) => error,
  );

const stateAtBroker = () => [...broker.transactions.values()].map(({ state }) => state);

test.each([
  ['end', 'commit'],
  ['abort', 'rollback'],
  ['commit and chain', 'commit'],
  ['rollback and chain', 'rollback'],
  ['/* quietly */ commit', 'commit'],
  ['select 1; commit', 'commit'],
  ['insert into account values (5); commit; begin; insert into account values (6)', 'commit'],
])(
  'a callback that ends the transaction by %j is told so, and the broker hears the truth',
  async (sql, outcome) => {
    const thrown = await failureOf(async (tx) => {
      await insert(tx, 1);
      await tx.query(sql);
      await insert(tx, 2);
    });
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome } });
    expect(stateAtBroker()).toEqual([outcome === 'commit' ? 'committed' : 'rolledBack']);
    expect((await accounts()).includes(1)).toBe(outcome === 'commit');
  },
);

test('what PostgreSQL does in a transaction is allowed: DDL, savepoints, settings, a second BEGIN', async () => {
  const result = await run(async (tx) => {
    await tx.query('create table if not exists extra (id int)');
    await tx.query('savepoint mine');
    await expect(tx.query('not sql')).rejects.toThrow('syntax error');
    await tx.query('rollback to savepoint mine');
    await tx.query("set local statement_timeout = '1s'");
    await tx.query('begin');
    await insert(tx, 1);
  });
  expect(result).toMatchObject({ outcome: 'committed' });
  expect(await accounts()).toEqual([1]);
});

test('an error that the callback undid by a savepoint of its own does not stop it', async () => {
  const result = await run(async (tx) => {
    await insert(tx, 1);
    await tx.query('savepoint mine');
    await expect(insert(tx, 1)).rejects.toThrow('duplicate key');
    await tx.query('rollback to savepoint mine');
  });
  expect(result).toMatchObject({ outcome: 'committed' });
});

test('a callback that swallowed a deadlock and went on is not committed', async () => {
  await observer.query('insert into account values (11), (12)');
  const other = await observer.connect();
  try {
    const thrown = await failureOf(async (tx) => {
      // The other one never looks for a deadlock, so the victim is the callback.
      await other.query("begin; set local deadlock_timeout = '1min'");
      await tx.query("set local deadlock_timeout = '50ms'");
      await tx.query("update account set phone = 'a' where id = 11");
      await other.query("update account set phone = 'b' where id = 12");
      const waiting = other.query("update account set phone = 'b' where id = 11");
      // PostgreSQL looks for a deadlock once in a wait: the victim must come last.
      await until('the other one waits', async () => {
        const { rows } = await observer.query('select 1 from pg_locks where not granted');
        return rows.length > 0;
      });
      await expect(tx.query("update account set phone = 'a' where id = 12")).rejects.toMatchObject({
        code: '40P01',
      });
      // Waits until the callback's transaction has ended, which it has already.
      await waiting;
    });
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
    expect(stateAtBroker()).toEqual(['rolledBack']);
  } finally {
    await other.query('rollback');
    other.release();
  }
});

test('a constraint that fails at COMMIT rolls both sides back, and its error comes as it is', async () => {
  const thrown = await failureOf(async (tx) => {
    await insert(tx, 1);
    await tx.query('insert into pet (owner) values (99)');
  });
  expect(thrown).toMatchObject({ code: '23503' });
  expect(stateAtBroker()).toEqual(['rolledBack']);
  expect(await accounts()).toEqual([]);
});

const endOwnConnection = async (tx: PgTransaction) => {
  const { rows } = await tx.query('select pg_backend_pid() as pid');
  await observer.query('select pg_terminate_backend($1, 5000)', [rows[0].pid]);
};

test('a connection that is lost in the callback rolls both sides back', async () => {
  const thrown = await failureOf(async (tx) => {
    await insert(tx, 1);
    await endOwnConnection(tx);
    await insert(tx, 2);
  });
  expect(thrown).not.toHaveProperty('code', 'TRANSACTION_MISUSED');
  expect(stateAtBroker()).toEqual(['rolledBack']);
  expect(await accounts()).toEqual([]);
});

test('a connection that is lost before COMMIT is decided, and the process goes on', async () => {
  const thrown = await failureOf(async (tx) => {
    await insert(tx, 1);
    await endOwnConnection(tx);
  });
  expect(thrown).toBeInstanceOf(Error);
  expect(stateAtBroker()).toEqual(['rolledBack']);
  expect(await accounts()).toEqual([]);
});

test('what somebody left open on a pooled client is rolled back, and not committed by us', async () => {
  const single = poolOf(1);
  try {
    const leaveOpen = async (id: number) => {
      const client = await single.connect();
      await client.query('begin');
      await client.query('insert into account (id) values ($1)', [id]);
      client.release();
    };
    await leaveOpen(1);
    expect(await ask(checkOf(single), uuidv7())).toBe('rollback');
    await leaveOpen(2);
    await producer.transaction(fromPg(single), message, (tx) => insert(tx, 3));
    expect(await accounts()).toEqual([3]);
  } finally {
    await single.end();
  }
});

test('a check leaves the settings of its connection as they were', async () => {
  const single = poolOf(1);
  try {
    await single.query("set lock_timeout = '17s'");
    await ask(checkOf(single), uuidv7());
    const { rows } = await single.query('show lock_timeout');
    expect(rows).toEqual([{ lock_timeout: '17s' }]);
  } finally {
    await single.end();
  }
});

test('a database that may not be written is no primary: a check answers unknown (F19)', async () => {
  const reading = new pg.Pool({
    connectionString: url,
    options: '-c default_transaction_read_only=on',
  });
  try {
    expect(await ask(checkOf(reading), uuidv7())).toBe('unknown');
  } finally {
    await reading.end();
  }
});

/** Counts how many statements wait for their answers at once, of those that answer by a promise. */
function countingPool(): { counting: pg.Pool; most(): number } {
  let underWay = 0;
  let most = 0;
  class CountingClient extends pg.Client {
    override query = ((...args: unknown[]) => {
      const answer: unknown = Reflect.apply(pg.Client.prototype.query, this, args);
      if (!(typeof answer === 'object' && answer !== null && 'then' in answer)) return answer;
      underWay += 1;
      most = Math.max(most, underWay);
      return Promise.resolve(answer).finally(() => {
        underWay -= 1;
      });
    }) as pg.Client['query'];
  }
  const counting = new pg.Pool({ connectionString: url, max: 1, Client: CountingClient });
  return { counting, most: () => most };
}

test('the SDK sends one statement at a time, as pg 9 will demand', async () => {
  const { counting, most } = countingPool();
  try {
    await producer.transaction(fromPg(counting), message, async (tx) => {
      await tx.query("set local application_name = 'mine'");
      await insert(tx, 1);
    });
    const client = await counting.connect();
    await client.query('begin');
    await producer.enlist(fromPg(client), message);
    await client.query('rollback');
    client.release();
    expect(most()).toBe(1);
  } finally {
    await counting.end();
  }
});

test.each(['promise', 'callback', 'query object'])(
  'a %s that needs the savepoint comes after it and before what follows',
  async (way) => {
    const settings = await run(async (tx) => {
      const sql = "set local application_name = 'mine'";
      const answered = new Promise((resolve, reject) => {
        if (way === 'promise') tx.query(sql).then(resolve, reject);
        else if (way === 'callback') void tx.query(sql, resolve);
        else tx.query(new pg.Query(sql)).on('end', resolve).on('error', reject);
      });
      // Sent at once, before the first is answered.
      const [, { rows }] = await Promise.all([answered, tx.query('show application_name')]);
      return rows;
    });
    expect(settings).toMatchObject({ value: [{ application_name: 'mine' }] });
  },
);

test('every way of pg to send a statement works, and is refused after the end', async () => {
  let kept: PgTransaction | undefined;
  const inCallbackStyle = (tx: PgTransaction, id: number) =>
    new Promise((resolve, reject) => {
      tx.query('insert into account (id) values ($1)', [id], (error, result) =>
        error ? reject(error) : resolve(result),
      );
    });
  const asObject = (tx: PgTransaction, id: number) =>
    new Promise((resolve, reject) => {
      const query = tx.query(new pg.Query('insert into account (id) values ($1)', [id]));
      query.on('end', resolve);
      query.on('error', reject);
    });
  await run(async (tx) => {
    kept = tx;
    await tx.query({ text: 'insert into account (id) values ($1)', values: [1] });
    const { rows } = await tx.query<{ id: number }>({
      text: 'select id from account',
      name: 'all',
    });
    expect(rows).toEqual([{ id: 1 }]);
    await inCallbackStyle(tx, 2);
    await asObject(tx, 3);
  });
  expect(await accounts()).toEqual([1, 2, 3]);
  if (kept === undefined) throw new Error('the callback was not called');
  const refused = { code: 'TRANSACTION_MISUSED' };
  await expect(kept.query('select 1')).rejects.toMatchObject(refused);
  await expect(inCallbackStyle(kept, 4)).rejects.toMatchObject(refused);
  await expect(asObject(kept, 5)).rejects.toMatchObject(refused);
});

test('a failure that only a query object saw spoils the transaction all the same', async () => {
  const thrown = await failureOf(async (tx) => {
    await insert(tx, 1);
    const query = tx.query(new pg.Query('not sql'));
    await new Promise((resolve) => query.on('error', resolve));
  });
  expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED' });
  expect(stateAtBroker()).toEqual(['rolledBack']);
});

test('a statement that the callback did not await is not committed', async () => {
  const thrown = await failureOf(async (tx) => {
    await insert(tx, 1);
    void insert(tx, 2);
  });
  expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
  expect(await accounts()).toEqual([]);
});

test('what is neither a pool nor a client of pg is refused with a sentence', () => {
  for (const given of [undefined, 'postgres://', {}, { connect() {} }]) {
    expect(() => fromPg(given as pg.Pool)).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIGURATION' }),
    );
  }
});

test('a COMMIT that PostgreSQL answers with ROLLBACK is an error, whatever was seen before', async () => {
  const limits = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };
  const committed = fromPg(pool).session(async (executor) => {
    await executor.execute('insert into account (id) values (1)');
    await executor.execute('not sql').catch(() => undefined);
  }, limits);
  await expect(committed).rejects.toMatchObject({
    code: 'TRANSACTION_MISUSED',
    message: expect.stringContaining('ROLLBACK'),
  });
  expect(await accounts()).toEqual([]);
});

test('the guard alone sees an error that the callback swallowed', async () => {
  const limits = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };
  const given = fromPg(pool).transaction(async ({ tx, guard }) => {
    expect(await guard.holds()).toBe(true);
    await tx.query('not sql').catch(() => undefined);
    expect(await guard.holds()).toBe(false);
    throw new Error('given up');
  }, limits);
  await expect(given).rejects.toThrow('given up');
});

test.each([
  ['commit', 'committed'],
  ['rollback', 'rolledBack'],
])(
  'a client with an open transaction is enlisted, and settles after its %s',
  async (end, outcome) => {
    const client = await pool.connect();
    try {
      await client.query('begin');
      const escrow = await producer.enlist(fromPg(client), message);
      await client.query('insert into account (id) values (1)');
      await escrow.verify();
      await client.query(end);
      expect(await escrow.settle(fromPg(pool))).toEqual({ outcome, id: escrow.id });
      expect(stateAtBroker()).toEqual([outcome]);
    } finally {
      client.release();
    }
  },
);

test('a client without a transaction, or with one that is spoilt, is not enlisted', async () => {
  const client = await pool.connect();
  try {
    const refused = { code: 'TRANSACTION_MISUSED' };
    await expect(producer.enlist(fromPg(client), message)).rejects.toMatchObject(refused);
    await client.query('begin');
    await client.query('not sql').catch(() => undefined);
    await expect(producer.enlist(fromPg(client), message)).rejects.toMatchObject(refused);
    await client.query('rollback');
    expect(broker.transactions.size).toBe(0);
  } finally {
    client.release();
  }
});

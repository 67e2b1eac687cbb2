import {
  createCheckHandler,
  createProducer,
  type Producer,
  type ProducerOptions,
} from '@escrowmq/producer';
import { EscrowError } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from '@jest/globals';
import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import { uuidv7 } from 'uuidv7';
import {
  decided,
  type FakeBroker,
  problemAnswer,
  startFakeBroker,
} from '../support/fake-broker.js';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';
import { deferred } from '../support/ready.js';
import { until } from '../support/until.js';

type Tx = Pick<PoolConnection, 'execute' | 'query'>;

const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };
let database: ProducerDatabase;
let broker: FakeBroker;
let pool: Pool;
let producer: Producer;
let open: { close(): Promise<void> }[];

beforeAll(async () => {
  database = await startProducerDatabase();
});
afterAll(() => database.close());

beforeEach(async () => {
  open = [];
  await database.observer.query('delete from account');
  broker = await startFakeBroker();
  pool = database.pool({ connectionLimit: 2 });
  producer = producerOf();
});
afterEach(async () => {
  for (const each of open.reverse()) await each.close();
  await broker.close();
});

const { logger, records } = recordingLogger();
const check = (options = {}) =>
  createCheckHandler({
    signingSecret: SIGNING_SECRET,
    database: database.observer,
    logger,
    ...options,
  });

function producerOf(options: Partial<ProducerOptions> = {}): Producer {
  records.length = 0;
  const made = createProducer({
    brokers: [broker.address],
    producerGroup: 'accounts',
    logger,
    ...options,
  });
  open.push(made);
  return made;
}

const insert = (tx: Tx, id: number) => tx.execute('insert into account (id) values (?)', [id]);

/** A pool of one connection that `by` has used before, so that it knows the barrier table there. */
async function usedPool(by: Producer): Promise<Pool> {
  const single = database.pool({ connectionLimit: 1 });
  // Connecting may take longer than `by` waits for a connection.
  await single.query('select 1');
  await by.transaction(single, message, (tx) => insert(tx, 0));
  await database.observer.query('delete from account');
  broker.transactions.clear();
  return single;
}

/** The id and state of the only transaction that the broker knows. */
function atBroker(): { id: string; state: string } {
  expect(broker.transactions.size).toBe(1);
  return [...broker.transactions.values()][0]!;
}

async function failure(work: Promise<unknown>): Promise<EscrowError> {
  return work.then(
    () => {
      throw new Error('it succeeded');
    },
    (error) => error,
  );
}

test('a transaction commits its rows and its messages and returns the result of its callback', async () => {
  const result = await producer.transaction(
    pool,
    message,
    async (tx) => {
      await insert(tx, 1);
      const [rows] = await tx.query<RowDataPacket[]>('select id from account');
      return rows.length;
    },
    { database: 'shard-3', businessKeys: ['phone:1'], expects: ['index'], checkAfterMs: 500 },
  );
  const { id, state } = atBroker();
  expect(result).toEqual({ outcome: 'committed', id, value: 1, acknowledged: true });
  expect(state).toBe('committed');
  expect(await database.barrier(id)).toBe('commit');
  expect(await database.accounts()).toEqual([1]);
  const { operations } = JSON.parse(broker.requests[0]!.body);
  expect(operations[0]).toMatchObject({
    op: 'prepare',
    checkContext: expect.stringMatching(/^\{"database":"shard-3","barrier":"[0-9a-f-]{36}"\}$/),
    businessKeys: ['phone:1'],
    expects: ['index'],
    checkAfterMs: 500,
  });
});

test('the callback gets statements and nothing that ends the transaction', async () => {
  await producer.transaction(pool, message, async (tx) => {
    expect(Object.keys(tx).sort()).toEqual(['execute', 'query']);
    await insert(tx, 1);
  });
});

test('an error of the callback comes back unchanged, and both sides are rolled back', async () => {
  const mine = new Error('phone number taken');
  const thrown = await failure(
    producer.transaction(pool, message, async (tx) => {
      await insert(tx, 1);
      throw mine;
    }),
  );
  expect(thrown).toBe(mine);
  const { id, state } = atBroker();
  expect(state).toBe('rolledBack');
  expect(await database.accounts()).toEqual([]);
  expect(await database.barrier(id)).toBeUndefined();
});

test('the local COMMIT waits for the prepare of the broker', async () => {
  let release = () => {};
  broker.script.push({
    after: new Promise<void>((resolve) => {
      release = resolve;
    }),
  });
  let isCallbackDone = false;
  const committed = producer.transaction(pool, message, async (tx) => {
    await insert(tx, 1);
    isCallbackDone = true;
  });
  await until('the callback is done', () => isCallbackDone);
  // Two round trips on another connection: a COMMIT that did not wait would be done by then.
  expect(await database.accounts()).toEqual([]);
  expect(await database.accounts()).toEqual([]);
  release();
  await committed;
  expect(await database.accounts()).toEqual([1]);
});

test('a check during the open transaction answers unknown, and commit once it has committed (F11)', async () => {
  const handler = check();
  let during = '';
  let id = '';
  await producer.transaction(pool, message, async (tx, info) => {
    id = info.id;
    await insert(tx, 1);
    during = await ask(handler, id);
  });
  expect(during).toBe('unknown');
  expect(await ask(handler, id)).toBe('commit');
  expect(await ask(handler, id)).toBe('commit');
});

test('a local transaction that comes after a check rolled it back fails before its callback (F12)', async () => {
  const single = await usedPool(producer);
  const held = await single.getConnection();
  let isCalled = false;
  const late = failure(
    producer.transaction(single, message, async () => {
      isCalled = true;
    }),
  );
  await until('the broker has it', () => broker.transactions.size === 1);
  expect(await ask(check(), atBroker().id)).toBe('rollback');
  held.release();
  expect(await late).toMatchObject({ code: 'ALREADY_ROLLED_BACK' });
  expect(isCalled).toBe(false);
  expect(atBroker().state).toBe('rolledBack');
});

/** Ends with the statement of `tx` as the victim of a deadlock. */
async function deadlock(tx: Tx): Promise<void> {
  await database.observer.query('delete from account');
  await database.observer.query(
    'insert into account (id) values (11), (12), (13), (14), (15), (16), (17), (18)',
  );
  const other = await database.observer.getConnection();
  try {
    await other.beginTransaction();
    await tx.query("update account set phone = 'a' where id = 11");
    // More rows than the local transaction changed: InnoDB rolls back the smaller one.
    await other.query("update account set phone = 'b' where id > 11");
    const waiting = other.query("update account set phone = 'b' where id = 11");
    await Promise.all([waiting, tx.query("update account set phone = 'a' where id = 12")]);
  } finally {
    await other.rollback();
    other.release();
  }
}

test('a deadlock is rethrown as it came, and both sides are rolled back', async () => {
  const thrown = await failure(producer.transaction(pool, message, deadlock));
  expect(thrown).toMatchObject({ errno: 1213 });
  expect(atBroker().state).toBe('rolledBack');
});

test('a callback that swallowed a deadlock and went on is not committed (F20)', async () => {
  const thrown = await failure(
    producer.transaction(pool, message, async (tx) => {
      await deadlock(tx).catch(() => undefined);
      await insert(tx, 1);
    }),
  );
  expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
  const { id, state } = atBroker();
  expect(state).toBe('rolledBack');
  expect(await database.barrier(id)).toBeUndefined();
});

test('a deadlock swallowed as the last thing of a callback is seen before COMMIT', async () => {
  const thrown = await failure(
    producer.transaction(pool, message, async (tx) => {
      await deadlock(tx).catch(() => undefined);
    }),
  );
  expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
  expect(atBroker().state).toBe('rolledBack');
});

test('without autocommit the transaction that follows a swallowed deadlock is not taken for it', async () => {
  const single = database.pool({ connectionLimit: 1 });
  await single.query('set session autocommit = 0');
  const thrown = await failure(
    producer.transaction(single, message, async (tx) => {
      await deadlock(tx).catch(() => undefined);
      await insert(tx, 1);
    }),
  );
  expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'rollback' } });
  expect(await database.accounts()).not.toContain(1);
});

test.each([
  ['DDL, which commits', 'create table if not exists extra (id int)', 'commit'],
  ['a COMMIT of its own', 'commit', 'commit'],
  ['a COMMIT AND CHAIN', 'commit and chain', 'commit'],
  ['a second START TRANSACTION, which commits', 'start transaction', 'commit'],
  ['a ROLLBACK of its own', 'rollback', 'rollback'],
  ['a ROLLBACK AND CHAIN', 'rollback and chain', 'rollback'],
  ['a switch of autocommit, which commits', 'set autocommit = 0; set autocommit = 1', 'commit'],
])(
  'a callback that ends the transaction by %s is told so, and the broker hears the truth (F20)',
  async (_, sql, outcome) => {
    const thrown = await failure(
      producer.transaction(pool, message, async (tx) => {
        await insert(tx, 1);
        for (const statement of sql.split('; ')) await tx.query(statement);
        await insert(tx, 2);
      }),
    );
    expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome } });
    const { id, state } = atBroker();
    expect(await database.barrier(id)).toBe(outcome);
    expect(state).toBe(outcome === 'commit' ? 'committed' : 'rolledBack');
    expect((await database.accounts()).includes(1)).toBe(outcome === 'commit');
  },
);

test('a callback that fails after DDL committed its row is not rolled back at the broker', async () => {
  const mine = new Error('too late');
  const thrown = await failure(
    producer.transaction(pool, message, async (tx) => {
      await insert(tx, 1);
      await tx.query('create table if not exists extra (id int)');
      throw mine;
    }),
  );
  expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: 'commit' } });
  expect(thrown.cause).toBe(mine);
  expect(atBroker().state).toBe('committed');
  expect(await database.accounts()).toEqual([1]);
});

test('a connection lost in the callback rolls both sides back', async () => {
  const thrown = await failure(
    producer.transaction(pool, message, async (tx) => {
      const [rows] = await tx.query<RowDataPacket[]>('select connection_id() as id');
      await database.observer.query('kill ?', [rows[0]!.id]);
      await insert(tx, 1);
    }),
  );
  expect(thrown).not.toHaveProperty('code', 'TRANSACTION_MISUSED');
  // Nothing that commits was sent, so nobody has to ask the database.
  const { id, state } = atBroker();
  expect(state).toBe('rolledBack');
  expect(await database.barrier(id)).toBeUndefined();
});

test('a prepare that the broker refuses rolls the local transaction back and sends no verdict', async () => {
  broker.script.push(problemAnswer(new EscrowError('UNKNOWN_PRODUCER_GROUP', 'no such group')));
  const thrown = await failure(producer.transaction(pool, message, (tx) => insert(tx, 1)));
  expect(thrown).toMatchObject({ code: 'UNKNOWN_PRODUCER_GROUP' });
  expect(await database.accounts()).toEqual([]);
  expect(broker.operations().map(({ op }) => op)).toEqual(['prepare']);
});

test('a prepare that gets no answer rolls the local transaction back within its limit (F02)', async () => {
  broker.script.push('hang', 'hang', 'hang', 'hang');
  const hasty = producerOf({ prepareTimeoutMs: 300, attemptTimeoutMs: 100 });
  const thrown = await failure(hasty.transaction(pool, message, (tx) => insert(tx, 1)));
  // Within its limit there is time for three attempts. The fifth would have had an answer.
  expect(thrown).toMatchObject({ code: 'BROKER_UNREACHABLE' });
  expect(await database.accounts()).toEqual([]);
});

test('a producer with too much waiting rolls the local transaction back and sends nothing of it', async () => {
  const gate = deferred();
  broker.script.push({ after: gate.promise });
  const crowded = producerOf({ operationsWaitingMax: 1 });
  const waiting = crowded.prepare({ messages: [message] });
  const thrown = await failure(crowded.transaction(pool, message, (tx) => insert(tx, 1)));
  expect(thrown).toMatchObject({ code: 'BROKER_BUSY' });
  expect(await database.accounts()).toEqual([]);
  gate.resolve();
  await waiting;
  expect(broker.operations().map(({ op }) => op)).toEqual(['prepare']);
});

test('a commit for which there is no room is left to the check, and the call succeeds', async () => {
  const gate = deferred();
  const crowded = producerOf({ operationsWaitingMax: 1 });
  const others = [uuidv7(), uuidv7()];
  for (const id of others) broker.transactions.set(id, { id, state: 'prepared' });
  let waiting: Promise<unknown>[] = [];
  let id = '';
  await crowded.transaction(pool, message, async (tx, info) => {
    id = info.id;
    await insert(tx, 1);
    await until('the broker has it', () => broker.transactions.has(id));
    // In a later batch than the prepare, so that the prepare has ended when this has.
    await crowded.commit(others[0]!);
    broker.script.push({ after: gate.promise });
    waiting = others.map((other) => crowded.commit(other));
  });
  expect(records).toEqual([
    expect.objectContaining({
      level: 'warn',
      fields: expect.objectContaining({
        transactionId: id,
        error: expect.objectContaining({ code: 'BROKER_BUSY' }),
      }),
    }),
  ]);
  gate.resolve();
  await Promise.all(waiting);
  expect(await ask(check(), id)).toBe('commit');
});

test('statements are refused once the prepare has failed', async () => {
  broker.script.push(problemAnswer(new EscrowError('UNKNOWN_PRODUCER_GROUP', 'no such group')));
  const thrown = await failure(
    producer.transaction(pool, message, async (tx) => {
      for (;;) await tx.query('select 1');
    }),
  );
  expect(thrown).toMatchObject({ code: 'UNKNOWN_PRODUCER_GROUP' });
});

test('a transaction that was rolled back at the broker is not committed locally', async () => {
  let release = () => {};
  broker.script.push({
    after: new Promise<void>((resolve) => {
      release = resolve;
    }),
  });
  const thrown = await failure(
    producer.transaction(pool, message, async (tx, { id }) => {
      await insert(tx, 1);
      broker.transactions.set(id, decided(id, 'rollback'));
      release();
    }),
  );
  expect(thrown).toMatchObject({ code: 'ALREADY_ROLLED_BACK' });
  expect(await database.accounts()).toEqual([]);
});

test('with the broker gone at commit the business call succeeds, and a check says commit (F23)', async () => {
  const hasty = producerOf({ verdictTimeoutMs: 300 });
  let id = '';
  const result = await hasty.transaction(pool, message, async (tx, info) => {
    id = info.id;
    await insert(tx, 1);
    await until('the broker has it', () => broker.transactions.has(id));
    await broker.close();
    return 'registered';
  });
  expect(result).toMatchObject({ outcome: 'committed', value: 'registered', acknowledged: false });
  expect(await database.accounts()).toEqual([1]);
  expect(records).toContainEqual(
    expect.objectContaining({
      level: 'warn',
      fields: expect.objectContaining({ transactionId: id }),
    }),
  );
  expect(await ask(check(), id)).toBe('commit');
});

test('a commit that the broker refuses is reported as an error, and the call succeeds (F27)', async () => {
  await producer.transaction(pool, message, async (tx, { id }) => {
    await insert(tx, 1);
    await until('the broker has it', () => broker.transactions.has(id));
    broker.transactions.set(id, decided(id, 'rollback'));
  });
  expect(records).toContainEqual(
    expect.objectContaining({
      level: 'error',
      fields: expect.objectContaining({
        error: expect.objectContaining({ code: 'STATE_CONFLICT' }),
      }),
    }),
  );
});

test('what the broker lost between prepare and commit is prepared once more, and committed (F28)', async () => {
  let id = '';
  const result = await producer.transaction(pool, message, async (tx, info) => {
    id = info.id;
    await insert(tx, 1);
    await until('the broker has it', () => broker.transactions.has(id));
    // A store that was set back to an older copy.
    broker.transactions.clear();
  });
  expect(result).toMatchObject({ outcome: 'committed', acknowledged: true });
  expect(atBroker()).toMatchObject({ id, state: 'committed' });
  expect(broker.operations().map(({ op }) => op)).toEqual([
    'prepare',
    'commit',
    'prepare',
    'commit',
  ]);
  expect(records).toContainEqual(expect.objectContaining({ level: 'error' }));
});

test('a missing barrier table is named, with the cure', async () => {
  const elsewhere = database.pool({ database: 'information_schema' });
  const thrown = await failure(producer.transaction(elsewhere, message, async () => undefined));
  expect(thrown.message).toMatch(/denied|escrow_barrier/i);
  await database.observer.query('rename table escrow_barrier to hidden');
  try {
    const missing = await failure(producer.transaction(pool, message, async () => undefined));
    expect(missing).toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining('ensureBarrierTable'),
    });
  } finally {
    await database.observer.query('rename table hidden to escrow_barrier');
  }
});

test('a callback that takes too long is cut off and rolled back', async () => {
  const hasty = producerOf({ transactionTimeoutMs: 200 });
  const thrown = await failure(
    hasty.transaction(pool, message, async (tx) => {
      await insert(tx, 1);
      await new Promise(() => {});
    }),
  );
  expect(thrown).toMatchObject({
    code: 'TRANSACTION_MISUSED',
    message: expect.stringContaining('transactionTimeoutMs'),
  });
  expect(await database.accounts()).toEqual([]);
  expect(atBroker().state).toBe('rolledBack');
});

test('a statement sent after the callback has ended is refused', async () => {
  let kept: Tx | undefined;
  await producer.transaction(pool, message, async (tx) => {
    kept = tx;
    await insert(tx, 1);
  });
  await expect(kept!.query('select 1')).rejects.toMatchObject({ code: 'TRANSACTION_MISUSED' });
});

test('a pool without a free connection fails the call, and the late connection is given back', async () => {
  const hasty = producerOf({ connectionTimeoutMs: 100 });
  const single = await usedPool(hasty);
  const held = await single.getConnection();
  const thrown = await failure(hasty.transaction(single, message, async () => undefined));
  expect(thrown).toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
  expect(atBroker().state).toBe('rolledBack');
  held.release();
  await hasty.transaction(single, message, (tx) => insert(tx, 1));
  expect(await database.accounts()).toEqual([1]);
});

test('hundreds of failures of every kind leave a pool of two as good as new', async () => {
  const hasty = producerOf({ transactionTimeoutMs: 100, verdictTimeoutMs: 1_000 });
  const kinds: ((tx: Tx) => Promise<unknown>)[] = [
    async () => {
      throw new Error('mine');
    },
    (tx) => tx.query('not sql'),
    (tx) => tx.query('commit'),
    (tx) => tx.query('rollback'),
    async (tx) => {
      const [rows] = await tx.query<RowDataPacket[]>('select connection_id() as id');
      await tx.query('kill ?', [rows[0]!.id]);
    },
  ];
  for (let round = 0; round < 20; round += 1) {
    const calls = [...kinds, ...kinds].map((kind) => hasty.transaction(pool, message, kind));
    const settled = await Promise.allSettled(calls);
    expect(settled.every(({ status }) => status === 'rejected')).toBe(true);
  }
  await Promise.all(
    [1, 2, 3].map((n) => producer.transaction(pool, message, (tx) => insert(tx, n))),
  );
  expect(await database.accounts()).toEqual([1, 2, 3]);
  const [first, second] = [await pool.getConnection(), await pool.getConnection()];
  first.release();
  second.release();
});

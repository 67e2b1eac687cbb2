import { createProducer, type Producer } from '@escrowmq/producer';
import {
  type Attempt,
  type CheckFunction,
  createFaultKit,
  FAULT_SCENARIOS,
  type FaultKit,
  type FaultKitOptions,
  type FaultScenario,
} from '@escrowmq/producer/testing';
import { afterAll, afterEach, beforeAll, describe, expect, test } from '@jest/globals';
import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import { Webhook } from 'standardwebhooks';
import { uuidv7 } from 'uuidv7';
import {
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';

/*
 * A producer written by hand, with the parts that people get wrong as parameters. The defaults are
 * right, so each variant has one mistake.
 */
interface Handwritten {
  /** @returns the id under which it goes on */
  prepare(producer: Producer, id: string, number: number): Promise<string>;
  /** Writes the row that a check finds. */
  bind(connection: PoolConnection, id: string): Promise<void>;
  beforeCommit(producer: Producer, id: string): Promise<void>;
  afterCommitError(producer: Producer, id: string): Promise<void>;
  verify(headers: Record<string, string>, body: string): void;
  decide(id: string, businessKeys: string[]): Promise<string>;
  /** What `decide` could not find out. */
  onError: string;
}

const ROW = '(transaction_id, decision, created_at) values (unhex(?), ?, utc_timestamp(3))';
const INSERT = `insert into escrow_barrier ${ROW}`;
const hex = (id: string) => id.replaceAll('-', '');
const isDuplicate = (error: unknown) =>
  error instanceof Error && 'code' in error && error.code === 'ER_DUP_ENTRY';

const messagesOf = (number: number) => [{ topic: 'user', data: number }];

let database: ProducerDatabase;
/** Through the kit's proxy. */
let pool: Pool;
/** Of the kit. */
let address: string;
const toClose: { close(): Promise<void> }[] = [];

beforeAll(async () => {
  database = await startProducerDatabase();
});
afterEach(async () => {
  await Promise.all(toClose.splice(0).map((each) => each.close()));
});
afterAll(() => database.close());

async function readBarrier(id: string, lock = 'for update'): Promise<string | undefined> {
  const [rows] = await pool.query<RowDataPacket[]>(
    `select decision from escrow_barrier where transaction_id = unhex(?) ${lock}`,
    [hex(id)],
  );
  return rows[0]?.decision;
}

const RIGHT: Handwritten = {
  async prepare(told, id, number) {
    await told.prepare({ id, businessKeys: [String(number)], messages: messagesOf(number) });
    return id;
  },
  async bind(connection, id) {
    await connection.query(INSERT, [hex(id), 'commit']);
  },
  async beforeCommit() {},
  async afterCommitError() {},
  verify(headers, body) {
    new Webhook(SIGNING_SECRET).verify(body, headers);
  },
  async decide(id) {
    try {
      await pool.query(INSERT, [hex(id), 'rollback']);
      return 'rollback';
    } catch (error) {
      if (!isDuplicate(error)) throw error;
      return (await readBarrier(id)) ?? 'unknown';
    }
  },
  onError: 'unknown',
};

function checkOf({ verify, decide, onError }: Handwritten): CheckFunction {
  return async (headers, body) => {
    let check: { id: string; producerGroup: string; businessKeys: string[] };
    try {
      verify(headers, body);
      check = JSON.parse(body);
    } catch {
      return { status: 401, body: '' };
    }
    if (typeof check.id !== 'string' || check.producerGroup !== 'accounts') {
      return { status: 400, body: '' };
    }
    const decision = await decide(check.id, check.businessKeys).catch(() => onError);
    return { status: 200, body: JSON.stringify({ id: check.id, decision }) };
  };
}

async function transact(by: Handwritten, told: Producer, { number, pause }: Attempt) {
  const id = await by.prepare(told, uuidv7(), number);
  const connection = await pool.getConnection();
  try {
    await connection.beginTransaction();
    await by.bind(connection, id);
    await connection.query('insert into account (id) values (?)', [number]);
    await pause();
  } catch (error) {
    await connection.rollback();
    connection.release();
    await told.rollback(id);
    throw error;
  }
  await by.beforeCommit(told, id);
  try {
    await connection.commit();
    connection.release();
  } catch (error) {
    connection.destroy();
    await by.afterCommitError(told, id);
    throw error;
  }
  await told.commit(id);
}

async function opened(making: Promise<FaultKit>): Promise<FaultKit> {
  const made = await making;
  toClose.push(made);
  return made;
}

function producerOf({ address }: FaultKit, producerGroup = 'accounts'): Producer {
  const { logger } = recordingLogger();
  const made = createProducer({ brokers: [address], producerGroup, logger });
  toClose.unshift(made);
  return made;
}

async function kitFor(mistake: Partial<Handwritten>): Promise<{ made: FaultKit; told: Producer }> {
  const by = { ...RIGHT, ...mistake };
  const made = await opened(
    createFaultKit({
      producerGroup: 'accounts',
      signingSecret: SIGNING_SECRET,
      check: checkOf(by),
      transaction: (attempt) => transact(by, told, attempt),
      committed: async ({ number }) => (await database.accounts()).includes(number),
    }),
  );
  address = made.address;
  const { hostname, port } = new URL(database.url);
  const proxy = await made.proxy({ host: hostname, port: Number(port) });
  const url = new URL(database.url);
  url.port = String(proxy.port);
  pool = database.pool({ uri: url.href });
  pool.on('connection', (connection) => {
    connection.query('set session innodb_lock_wait_timeout = 1');
  });
  const told = producerOf(made);
  return { made, told };
}

test('a producer that is written by hand and makes no mistake passes everything', async () => {
  const { made } = await kitFor({});
  const verdicts = await made.run();
  expect(verdicts.filter(({ passed, skipped }) => !passed || skipped)).toEqual([]);
  expect(verdicts.map(({ scenario }) => scenario)).toEqual(FAULT_SCENARIOS);
});

interface Mistake {
  name: string;
  mistake: Partial<Handwritten>;
  scenario: FaultScenario;
  words: RegExp[];
}

const MISTAKES: Mistake[] = [
  {
    name: 'a check that looks for the row instead of inserting it',
    mistake: { decide: async (id) => (await readBarrier(id, '')) ?? 'rollback' },
    scenario: 'a check while the local transaction is open',
    words: [
      /^check answered rollback while the local transaction was still open, and the transaction committed afterwards: its message would be lost\. Answer unknown while it is open: insert the barrier row instead of looking for it/,
    ],
  },
  {
    name: 'a check that looks for the row, and comes first,',
    mistake: { decide: async (id) => (await readBarrier(id, '')) ?? 'rollback' },
    scenario: 'a check before the local transaction begins',
    words: [/before the local transaction began, and the transaction committed all the same/],
  },
  {
    name: 'a check that inserts with IGNORE',
    mistake: {
      async decide(id) {
        await pool.query(INSERT.replace('insert', 'insert ignore'), [hex(id), 'rollback']);
        return 'rollback';
      },
    },
    scenario: 'a commit that gets lost',
    words: [/although the local transaction had committed/, /never INSERT IGNORE/],
  },
  {
    name: 'a check that inserts with an upsert',
    mistake: {
      async decide(id) {
        const upsert = `${INSERT} on duplicate key update decision = values(decision)`;
        await pool.query(upsert, [hex(id), 'rollback']);
        return (await readBarrier(id)) ?? 'unknown';
      },
    },
    scenario: 'a commit that gets lost',
    words: [/although the local transaction had committed/, /or an upsert/],
  },
  {
    name: 'a local transaction that inserts with IGNORE',
    mistake: {
      async bind(connection, id) {
        await connection.query(INSERT.replace('insert', 'insert ignore'), [hex(id), 'commit']);
      },
    },
    scenario: 'a check before the local transaction begins',
    words: [/committed all the same/, /never INSERT IGNORE/],
  },
  {
    name: 'a rollback after a COMMIT that got no answer',
    mistake: {
      afterCommitError: async (told, id) => {
        await told.rollback(id);
      },
    },
    scenario: 'a COMMIT whose answer gets lost',
    words: [/a rollback was sent after a COMMIT that got no answer, and that COMMIT had happened/],
  },
  {
    name: 'a commit that is sent before the local COMMIT',
    mistake: {
      beforeCommit: async (told, id) => {
        await told.commit(id);
      },
    },
    scenario: 'a COMMIT that never reaches the database',
    words: [/a commit was sent for a local transaction that did not commit.*First the database/],
  },
  ...(
    [
      ['a check signed with another secret', /signed with another secret was answered 200/],
      ['a check without a signature', /without a signature was answered 200/],
      ['a check that is replayed', /signed ten minutes ago was answered 200.*five minutes/],
    ] as const
  ).map(
    ([scenario, words]): Mistake => ({
      name: `a check without verification, asked with ${scenario},`,
      mistake: { verify: () => {} },
      scenario,
      words: [words, /the local transaction could not commit any more/],
    }),
  ),
  {
    name: 'a barrier row that is written on another connection',
    mistake: {
      async bind(_connection, id) {
        await pool.query(INSERT, [hex(id), 'commit']);
      },
    },
    scenario: 'a check while the local transaction is open',
    words: [/check answered commit before.*The barrier row was written outside/],
  },
  {
    name: 'a barrier row on another connection, of a transaction that rolls back,',
    mistake: {
      async bind(_connection, id) {
        await pool.query(INSERT, [hex(id), 'commit']);
      },
    },
    scenario: 'a rollback that gets lost',
    words: [/check answered commit although the local transaction did not commit/],
  },
  {
    name: 'a check that answers rollback on an error',
    mistake: { onError: 'rollback' },
    scenario: 'a check while the database can not be reached',
    words: [/while it could not reach its database.*answer unknown, or a status of 500/],
  },
  {
    name: 'a check that answers rollback on a lock wait',
    mistake: { onError: 'rollback' },
    scenario: 'a check while the local transaction is open',
    words: [/answer unknown when that waits for a lock or fails/],
  },
  {
    name: 'a local transaction that goes on without the prepare',
    mistake: {
      async prepare(told, id, number) {
        await told.prepare({ id, messages: messagesOf(number) }).catch(() => {});
        return id;
      },
    },
    scenario: 'a prepare that never arrives',
    words: [/no prepare of it ever reached the broker/],
  },
  {
    name: 'a prepare that is repeated under another id, and a check that goes by the business row',
    mistake: {
      async prepare(told, id, number) {
        const prepare = { businessKeys: [String(number)], messages: messagesOf(number) };
        // Without an id of its own, so the broker makes one.
        await fetch(`${address}/v1/transactions`, {
          method: 'POST',
          body: JSON.stringify({ producerGroup: 'accounts', ...prepare }),
        }).catch(() => told.prepare({ ...prepare, id }));
        return id;
      },
      async decide(_id, [number]) {
        const accounts = await database.accounts();
        return accounts.includes(Number(number)) ? 'commit' : 'rollback';
      },
    },
    scenario: 'a prepare whose answer gets lost',
    words: [/prepared 2 transactions, and checks would send the messages of 2/],
  },
];

describe('the fault kit condemns', () => {
  test.each(MISTAKES)('$name', async ({ mistake, scenario, words }) => {
    const { made } = await kitFor(mistake);
    const verdict = await made.runScenario(scenario);
    expect(verdict).toMatchObject({ scenario, passed: false });
    for (const word of words) expect(verdict.finding).toMatch(word);
  });
});

describe('the fault kit throws for a set-up', () => {
  const setUp = (transaction: FaultKitOptions['transaction'], committed = true) =>
    opened(
      createFaultKit({
        producerGroup: 'accounts',
        signingSecret: SIGNING_SECRET,
        check: checkOf(RIGHT),
        transaction,
        committed: async () => committed,
      }),
    );
  const COMMITS = 'an undisturbed transaction that commits';

  test('whose producer talks to another broker', async () => {
    const { told } = await kitFor({});
    const made = await setUp((attempt) => transact(RIGHT, told, attempt));
    await expect(made.runScenario(COMMITS)).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining(`sent no prepare to ${made.address}`),
    });
  });

  test('whose producer belongs to another group', async () => {
    const made = await setUp((attempt) => transact(RIGHT, told, attempt));
    const told = producerOf(made, 'payments');
    await expect(made.runScenario(COMMITS)).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining('was made for the group accounts, not payments'),
    });
  });

  test.each<FaultScenario>([COMMITS, 'a check while the local transaction is open'])(
    'whose transaction does not await pause, in %s',
    async (scenario) => {
      const made = await setUp(() => told.prepare({ messages: [{ topic: 'user', data: 1 }] }));
      const told = producerOf(made);
      await expect(made.runScenario(scenario)).rejects.toMatchObject({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringMatching(/await(ing)? pause\(\)/),
      });
    },
  );

  test.each<FaultScenario>([COMMITS, 'a commit that gets lost'])(
    'whose transaction can not commit, in %s',
    async (scenario) => {
      const made = await setUp(async ({ number, pause }) => {
        const { id } = await told.prepare({ messages: messagesOf(number) });
        await pause();
        await told.rollback(id);
        throw new Error('no such table');
      }, false);
      const told = producerOf(made);
      await expect(made.runScenario(scenario)).rejects.toMatchObject({
        code: 'INVALID_CONFIGURATION',
        message: expect.stringMatching(/did not commit\. It threw: Error: no such table/),
      });
    },
  );

  test('whose COMMIT does not come through the proxy', async () => {
    const { made } = await kitFor({});
    pool = database.pool();
    await expect(made.runScenario('a COMMIT whose answer gets lost')).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining('no COMMIT came through kit.proxy()'),
    });
  });

  test('and goes on with the next scenario', async () => {
    const { made } = await kitFor({});
    const throughProxy = pool;
    pool = database.pool();
    const failing = made.runScenario('a COMMIT whose answer gets lost');
    await expect(failing).rejects.toMatchObject({ code: 'INVALID_CONFIGURATION' });
    pool = throughProxy;
    expect(await made.runScenario(COMMITS)).toMatchObject({ passed: true });
  });
});

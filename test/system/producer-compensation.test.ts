import type { LocalDatabase } from '@escrowmq/database';
import {
  type CompensationHandler,
  type CompensationHandlerOptions,
  type CompensationRequest,
  createCompensationHandler,
  ensureCompensationTable,
} from '@escrowmq/producer';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import { insertCompensated } from '../../producer-sdk/src/compensation/compensation-table.js';
import { insertBarrier } from '../../producer-sdk/src/local/barrier.js';
import { askWith, recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';
import { MARIADB, POSTGRES, SQLITE, type SuiteDatabase } from '../support/producer-databases.js';

const DAY_MS = 24 * 60 * 60 * 1000;
const LIMITS = { connectionTimeoutMs: 5_000, commitTimeoutMs: 5_000 };
type Options = Partial<CompensationHandlerOptions<LocalDatabase<unknown>>>;

const { logger, records } = recordingLogger();

describe.each([MARIADB, POSTGRES, SQLITE])('on $name', ({ dialect, start }) => {
  let suite: SuiteDatabase;
  let database: LocalDatabase<unknown>;
  let id: string;
  /** The next business row, so that each run of a callback leaves one of its own. */
  let account = 0;
  let ran: CompensationRequest[];

  beforeAll(async () => {
    suite = await start();
    ({ database } = suite.connect());
    await ensureCompensationTable(database);
    // Again, as every start of a service does.
    await ensureCompensationTable(database);
  });
  afterAll(() => suite.close());
  beforeEach(async () => {
    id = uuidv7();
    ran = [];
    records.length = 0;
    await suite.observe('delete from account');
  });

  const write = (tx: unknown) => suite.send(tx, `insert into account (id) values (${++account})`);
  const handlerOf = (options: Options = {}): CompensationHandler =>
    createCompensationHandler<LocalDatabase<unknown>>({
      signingSecret: SIGNING_SECRET,
      ...(options.databases === undefined ? { database } : {}),
      logger,
      async compensate(tx, request) {
        ran.push(request);
        await write(tx);
      },
      ...options,
    });

  /** Calls as the broker does; resolves with the status. */
  async function call(handler: CompensationHandler, changes: object = {}): Promise<number> {
    const { status, body } = await askWith(handler, id, {
      check: { consumerGroup: 'stock', message: 0, messageId: `${id}-0`, cause: 'no', ...changes },
    });
    if (status === 200) expect(JSON.parse(body)).toEqual({ id, acknowledged: true });
    else expect(JSON.parse(body)).toMatchObject({ status, code: expect.any(String) });
    return status;
  }

  const decided = (decision: 'commit' | 'rollback') =>
    database.session((executor) => insertBarrier({ executor, dialect }, id, decision), LIMITS);
  const accounts = async () => (await suite.accounts()).length;

  test('what was committed is compensated once, however often it is called for', async () => {
    await decided('commit');
    const handler = handlerOf();
    for (let round = 0; round < 3; round += 1) expect(await call(handler)).toBe(200);
    expect(await call(handlerOf())).toBe(200);
    expect(await accounts()).toBe(1);
    expect(ran).toMatchObject([{ id, consumerGroup: 'stock', message: 0, cause: 'no' }]);
  });

  test('each message and each group is compensated by itself', async () => {
    await decided('commit');
    const handler = handlerOf();
    for (const consumerGroup of ['stock', 'Stock', 'index']) {
      for (const message of [0, 31]) {
        expect(await call(handler, { consumerGroup, message })).toBe(200);
      }
    }
    expect(await accounts()).toBe(6);
  });

  test('calls at the same moment run it once', async () => {
    await decided('commit');
    const handler = handlerOf();
    const calls = Array.from({ length: 5 }, () => call(handler));
    const statuses = await Promise.all(calls);
    expect(statuses).toContain(200);
    expect(await call(handler)).toBe(200);
    expect(await accounts()).toBe(1);
  });

  test('of what was not committed there is nothing to undo, and it never will be', async () => {
    const handler = handlerOf();
    expect(await call(handler)).toBe(200);
    expect(await suite.barrier(id)).toBe('rollback');
    // Not by its class: a native driver makes its errors in the file of tests that loaded it first.
    await expect(decided('commit')).rejects.toHaveProperty('code');
    expect(await call(handler)).toBe(200);
    expect(ran).toEqual([]);
    expect(records).toMatchObject([{ level: 'warn' }, { level: 'warn' }]);
  });

  test('what a check has rolled back is not compensated', async () => {
    await decided('rollback');
    expect(await call(handlerOf())).toBe(200);
    expect(ran).toEqual([]);
  });

  test('while the original transaction is open nothing is acknowledged', async () => {
    await database.transaction(async ({ executor, guard }) => {
      await insertBarrier({ executor, dialect }, id, 'commit');
      await guard.arm();
      const other = suite.connect().database;
      expect(await call(handlerOf({ database: other }))).toBe(503);
      await guard.holds();
    }, LIMITS);
    expect(ran).toEqual([]);
    expect(await call(handlerOf())).toBe(200);
    expect(await accounts()).toBe(1);
  });

  test('a callback that fails is rolled back, and called for again', async () => {
    await decided('commit');
    const failing = handlerOf({
      async compensate(tx) {
        await write(tx);
        throw new Error('the stock is locked: s3cret');
      },
    });
    const { status, body } = await askWith(failing, id, {
      check: { consumerGroup: 'stock', message: 0, messageId: `${id}-0` },
    });
    expect(status).toBe(503);
    expect(body).not.toContain('s3cret');
    expect(records).toMatchObject([
      { level: 'error', fields: { error: { code: 'COMPENSATION_NOT_DONE' } } },
    ]);
    expect(await accounts()).toBe(0);
    expect(await call(handlerOf())).toBe(200);
    expect(await accounts()).toBe(1);
  });

  test('a callback that swallowed an error of the database is acknowledged only if it is durable', async () => {
    await decided('commit');
    const swallowing = handlerOf({
      async compensate(tx) {
        await write(tx);
        await Promise.resolve()
          .then(() => suite.send(tx, 'select * from nowhere'))
          .catch(() => undefined);
      },
    });
    const isAcknowledged = (await call(swallowing)) === 200;
    // There, a failed statement ends the transaction, and COMMIT would roll back without saying so.
    expect(isAcknowledged).toBe(dialect !== 'postgres');
    expect(await accounts()).toBe(isAcknowledged ? 1 : 0);
    if (isAcknowledged) return;
    expect(await call(handlerOf())).toBe(200);
    expect(await accounts()).toBe(1);
  });

  // Elsewhere DDL is part of the transaction.
  if (dialect === 'mysql')
    test('a callback that ends its transaction is not acknowledged as it was meant', async () => {
      await decided('commit');
      const ending = handlerOf({
        async compensate(tx) {
          await write(tx);
          await suite.send(tx, 'create table made_on_the_way (id int)');
          await write(tx);
        },
      });
      expect(await call(ending)).toBe(503);
      const message = expect.stringMatching(/ended inside its callback/);
      expect(records).toMatchObject([
        { level: 'error', fields: { error: { cause: { message } } } },
      ]);
      records.length = 0;
      const failing = handlerOf({
        async compensate(tx) {
          await suite.send(tx, 'create table made_and_failed (id int)');
          throw new Error('no');
        },
      });
      expect(await call(failing, { message: 1 })).toBe(503);
      const inPart = expect.stringMatching(/may have made a part of it durable/);
      expect(records).toMatchObject([{ fields: { error: { cause: { message: inPart } } } }]);
      // Its row was committed with what came before it: nothing is run twice.
      expect(await call(handlerOf())).toBe(200);
      expect(ran).toEqual([]);
    });

  test('a callback that does not end in time is rolled back and not acknowledged', async () => {
    await decided('commit');
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const slow = handlerOf({
      answerTimeoutMs: 300,
      async compensate(tx) {
        await write(tx);
        await ended;
      },
    });
    expect(await call(slow)).toBe(503);
    end();
    // Waits for the row of the one that is being rolled back, and does not find it.
    expect(await call(handlerOf())).toBe(200);
    expect(ran).toHaveLength(1);
    expect(await accounts()).toBe(1);
  });

  test('a callback that keeps the event loop busy until its time is over is rolled back', async () => {
    await decided('commit');
    const busy = handlerOf({
      answerTimeoutMs: 300,
      async compensate(tx) {
        await write(tx);
        const end = performance.now() + 400;
        while (performance.now() < end);
      },
    });
    expect(await call(busy)).toBe(503);
    expect(await accounts()).toBe(0);
    expect(await call(handlerOf())).toBe(200);
    expect(await accounts()).toBe(1);
  });

  // Elsewhere a transaction that writes lets no other in, so that nothing waits for a row.
  if (dialect !== 'sqlite')
    test('what is given up while it waits for its row calls no callback later', async () => {
      await decided('commit');
      const key = { id, consumerGroup: 'stock', message: 0 } as CompensationRequest;
      const undone = new Error('undone');
      const holding = database.transaction(async ({ executor }) => {
        await insertCompensated({ executor, dialect }, key);
        expect(await call(handlerOf({ answerTimeoutMs: 300 }))).toBe(503);
        throw undone;
      }, LIMITS);
      await expect(holding).rejects.toBe(undone);
      expect(await call(handlerOf())).toBe(200);
      expect(ran).toHaveLength(1);
      expect(await accounts()).toBe(1);
    });

  test('what was prepared longer ago than barrier rows are kept is left to people', async () => {
    const old = { preparedAt: Date.now() - 6 * DAY_MS - 60_000 };
    expect(await call(handlerOf(), old)).toBe(503);
    expect(await suite.barrier(id)).toBeUndefined();
    await decided('commit');
    expect(await call(handlerOf({ barrierRetentionMs: 30 * DAY_MS }), old)).toBe(200);
    expect(ran).toHaveLength(1);
  });

  test('what was sent without a prepare has no barrier to ask', async () => {
    expect(await call(handlerOf(), { sent: true })).toBe(200);
    expect(await call(handlerOf(), { sent: true })).toBe(200);
    expect(await suite.barrier(id)).toBeUndefined();
    expect(await accounts()).toBe(1);
  });

  test('among several databases the context names it, and for what was sent the producer', async () => {
    const databases = { here: database };
    const handler = handlerOf({ databases });
    await decided('commit');
    expect(await call(handler)).toBe(503);
    expect(await call(handler, { checkContext: 'elsewhere' })).toBe(503);
    expect(await call(handler, { checkContext: 'here' })).toBe(200);
    id = uuidv7();
    expect(await call(handler, { sent: true })).toBe(503);
    const naming = handlerOf({ databases, databaseOfSent: ({ cause }) => String(cause) });
    expect(await call(naming, { sent: true, cause: 'here' })).toBe(200);
    expect(await call(naming, { sent: true, cause: 'elsewhere', message: 1 })).toBe(503);
    expect(await accounts()).toBe(2);
  });

  test('another database than that of the transaction decides nothing', async () => {
    const checkContext = JSON.stringify({ barrier: uuidv7() });
    expect(await call(handlerOf(), { checkContext })).toBe(503);
    expect(await suite.barrier(id)).toBeUndefined();
  });

  test('without its table it says what to do', async () => {
    await decided('commit');
    await suite.observe('alter table escrow_compensated rename to escrow_compensated_away');
    try {
      expect(await call(handlerOf())).toBe(503);
      expect(ran).toEqual([]);
      const message = expect.stringContaining('ensureCompensationTable');
      expect(records).toMatchObject([
        { level: 'error', fields: { error: { cause: { message } } } },
      ]);
    } finally {
      await suite.observe('alter table escrow_compensated_away rename to escrow_compensated');
    }
    expect(await call(handlerOf())).toBe(200);
  });

  test('what is not signed, or no compensation, reaches no database', async () => {
    const handler = handlerOf({ producerGroup: 'accounts' });
    const check = { consumerGroup: 'stock', message: 0, messageId: `${id}-0` };
    const wrong = `whsec_${Buffer.alloc(32, 9).toString('base64')}`;
    expect(await askWith(handler, id, { check, secret: wrong })).toMatchObject({
      status: 401,
      body: expect.stringContaining('the compensation is not signed'),
    });
    const late = { check, signedAt: new Date(Date.now() - 6 * 60_000) };
    expect((await askWith(handler, id, late)).status).toBe(401);
    expect((await askWith(handler, id)).status).toBe(400);
    expect(await call(handler, { producerGroup: 'orders' })).toBe(404);
    expect(await suite.barrier(id)).toBeUndefined();
    expect(ran).toEqual([]);
  });
});

import {
  createCheckHandler,
  createProducer,
  type Producer,
  type ProducerOptions,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import type { LocalDatabase } from '../../database/src/database.js';
import { type FakeBroker, startFakeBroker } from './fake-broker.js';
import { ask, recordingLogger, SIGNING_SECRET } from './producer-database.js';
import type { DatabaseKind, SuiteConnections, SuiteDatabase } from './producer-databases.js';
import { MODES, OUTBOX } from './producer-modes.js';
import { deferred } from './ready.js';
import { until } from './until.js';

const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };

/** What holds for every database that a producer may use, and wherever its messages are held. */
export function describeProducerDatabase(kind: DatabaseKind): void {
  describe.each(MODES)(`a producer on ${kind.name}, its messages $name`, (mode) => {
    const { logger } = recordingLogger();
    let suite: SuiteDatabase;
    let connections: SuiteConnections;
    let broker: FakeBroker;
    let producer: Producer;
    let opened: Producer[];
    /** Of the last transaction that began its callback. */
    let id: string;

    beforeAll(async () => {
      suite = await kind.start();
    });
    afterAll(() => suite.close());

    beforeEach(async () => {
      opened = [];
      await suite.observe('delete from account');
      id = '';
      broker = await startFakeBroker();
      connections = suite.connect({ connections: 2 });
      producer = producerOf();
    });
    afterEach(async () => {
      for (const each of opened) await each.close();
      await broker.close();
    });

    function producerOf(options: Partial<ProducerOptions> = {}): Producer {
      const made = createProducer({
        brokers: [broker.address],
        producerGroup: 'accounts',
        logger,
        ...mode.options,
        ...options,
      });
      opened.push(made);
      return made;
    }

    /** Answers checks on connections of its own, as another instance of the service would. */
    const checkOf = (database: LocalDatabase<unknown> = suite.connect().database) =>
      createCheckHandler({
        signingSecret: SIGNING_SECRET,
        database,
        logger,
        answerTimeoutMs: 1_500,
      });

    const insert = (tx: unknown, id: number) =>
      suite.send(tx, `insert into account (id) values (${id})`);

    /** A transaction that inserts accounts and brings one message. */
    function transact(
      work: (tx: unknown) => Promise<unknown>,
      { by = producer, database = connections.database } = {},
    ) {
      return by.transaction(database, message, (tx, info) => {
        id = info.id;
        return work(tx);
      });
    }

    const nothingIsOpen = () =>
      until('no transaction is open', async () => (await suite.idleInTransaction()) === 0);

    const failure = (work: Promise<unknown>): Promise<unknown> =>
      work.then(
        () => {
          throw new Error('it succeeded');
        },
        (error: unknown) => error,
      );

    test('a transaction commits its rows and its messages', async () => {
      const result = await transact(async (tx) => {
        await insert(tx, 1);
        return 'registered';
      });
      const { acknowledged } = mode;
      expect(result).toEqual({ outcome: 'committed', id, value: 'registered', acknowledged });
      await mode.expectTold(broker, id, 'commit');
      expect(await mode.row(suite, id)).toBe('commit');
      expect(await suite.accounts()).toEqual([1]);
    });

    test('an error of the callback comes back unchanged, and both sides are rolled back', async () => {
      const mine = new Error('phone number taken');
      const thrown = await failure(
        transact(async (tx) => {
          await insert(tx, 1);
          throw mine;
        }),
      );
      expect(thrown).toBe(mine);
      await mode.expectTold(broker, id, 'rollback');
      expect(await suite.accounts()).toEqual([]);
      expect(await mode.row(suite, id)).toBeUndefined();
    });

    test('an error of the database comes back as it came, and both sides are rolled back', async () => {
      await suite.observe('insert into account (id) values (1)');
      let seen: unknown;
      const thrown = await failure(
        transact(async (tx) => {
          await insert(tx, 1).catch((error: unknown) => {
            seen = error;
            throw error;
          });
        }),
      );
      // Not by its class: a driver that is native code throws errors of another realm than jest's.
      expect(thrown).toHaveProperty('message');
      expect(thrown).toBe(seen);
      await mode.expectTold(broker, id, 'rollback');
    });

    test.each(['commit', 'rollback'])(
      'a callback that ends the transaction by a %s of its own is told so, and the broker hears the truth',
      async (sql) => {
        const thrown = await failure(
          transact(async (tx) => {
            await insert(tx, 1);
            await suite.send(tx, sql);
            await insert(tx, 2);
          }),
        );
        expect(thrown).toMatchObject({ code: 'TRANSACTION_MISUSED', details: { outcome: sql } });
        await mode.expectTold(broker, id, sql);
        expect(await mode.row(suite, id)).toBe(sql);
        expect((await suite.accounts()).includes(1)).toBe(sql === 'commit');
      },
    );

    test('a callback that swallowed an error commits everything or nothing, never a part', async () => {
      await suite.observe('insert into account (id) values (9)');
      const settled = await transact(async (tx) => {
        await insert(tx, 1);
        await failure(insert(tx, 9));
      }).catch((error: unknown) => error);
      // PostgreSQL goes on with nothing after an error; the others have undone that statement alone.
      const isCommitted = kind.dialect !== 'postgres';
      await mode.expectTold(broker, id, isCommitted ? 'commit' : 'rollback');
      expect(settled).toMatchObject(
        isCommitted ? { outcome: 'committed' } : { code: 'TRANSACTION_MISUSED' },
      );
      expect(await suite.accounts()).toEqual(isCommitted ? [1, 9] : [9]);
    });

    test('a statement sent after the callback has ended is refused', async () => {
      let kept: unknown;
      await transact(async (tx) => {
        await insert(tx, 1);
        kept = tx;
      });
      const late = failure((async () => insert(kept, 2))());
      expect(await late).toMatchObject({ code: 'TRANSACTION_MISUSED' });
      expect(await suite.accounts()).toEqual([1]);
    });

    test('a missing table is named, with the cure', async () => {
      await suite.observe(`alter table ${mode.table} rename to hidden`);
      try {
        const fresh = suite.connect().database;
        const thrown = await failure(transact((tx) => insert(tx, 1), { database: fresh }));
        expect(thrown).toMatchObject({
          code: 'INVALID_CONFIGURATION',
          message: expect.stringContaining(mode.cure),
        });
      } finally {
        await suite.observe(`alter table hidden rename to ${mode.table}`);
      }
    });

    test('no free connection fails the call, and one that comes late is given back', async () => {
      const single = suite.connect({ connections: 1 });
      // What is asked of a database once has been asked.
      await transact((tx) => insert(tx, 1), single);
      await mode.settled(suite, broker, connections.database);
      const giveBack = await single.hold();
      const by = producerOf({ connectionTimeoutMs: 100 });
      const thrown = await failure(transact((tx) => insert(tx, 2), { by, ...single }));
      expect(thrown).toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
      giveBack();
      await transact((tx) => insert(tx, 3), { by, ...single });
      expect(await suite.accounts()).toEqual([1, 3]);
    });

    test('failures of every kind leave two connections as good as new', async () => {
      const by = producerOf({ transactionTimeoutMs: 200 });
      const kinds: ((tx: unknown) => Promise<unknown>)[] = [
        async () => {
          throw new Error('mine');
        },
        (tx) => suite.send(tx, 'not sql'),
        (tx) => suite.send(tx, 'commit'),
        (tx) => suite.send(tx, 'rollback'),
        async (tx) => {
          await insert(tx, 1);
          await new Promise(() => {});
        },
      ];
      for (let round = 0; round < 10; round += 1) {
        const settled = await Promise.allSettled(kinds.map((each) => transact(each, { by })));
        expect(settled.map(({ status }) => status)).toEqual(kinds.map(() => 'rejected'));
      }
      await Promise.all([1, 2, 3].map((account) => transact((tx) => insert(tx, account))));
      expect(await suite.accounts()).toEqual([1, 2, 3]);
      await mode.settled(suite, broker, connections.database);
      await nothingIsOpen();
    });

    // Of what is in the outbox nobody asks: it is decided.
    if (mode === OUTBOX) return;

    test('a check during the open transaction answers unknown, and commit ever after (F11)', async () => {
      const check = checkOf();
      let during = '';
      await transact(async (tx) => {
        await insert(tx, 1);
        during = await ask(check, id);
      });
      expect(during).toBe('unknown');
      expect([await ask(check, id), await ask(check, id)]).toEqual(['commit', 'commit']);
    });

    test('a check of a transaction that was rolled back answers rollback, and ever after', async () => {
      const check = checkOf();
      let during = '';
      await failure(
        transact(async (tx) => {
          await insert(tx, 1);
          during = await ask(check, id);
          throw new Error('mine');
        }),
      );
      expect(during).toBe('unknown');
      expect([await ask(check, id), await ask(check, id)]).toEqual(['rollback', 'rollback']);
      expect(await suite.accounts()).toEqual([]);
    });

    test('a local transaction that comes after a check fails before its callback (F12)', async () => {
      const gate = deferred();
      const late: LocalDatabase<unknown> = {
        ...connections.database,
        async transaction(work, limits) {
          await gate.promise;
          return connections.database.transaction(work, limits);
        },
      };
      let isCalled = false;
      const thrown = failure(
        transact(
          async (tx) => {
            isCalled = true;
            await insert(tx, 1);
          },
          { database: late },
        ),
      );
      await until('the broker has it', () => broker.transactions.size === 1);
      const [prepared = ''] = broker.transactions.keys();
      expect(await ask(checkOf(), prepared)).toBe('rollback');
      gate.resolve();
      expect(await thrown).toMatchObject({ code: 'ALREADY_ROLLED_BACK' });
      expect(isCalled).toBe(false);
      expect(await suite.accounts()).toEqual([]);
    });

    test('two checks that wait for a transaction that rolls back never contradict each other (F14)', async () => {
      const waiting = [suite.connect({ connections: 1 }), suite.connect({ connections: 1 })];
      const checks = waiting.map(({ database }) => checkOf(database));
      for (let round = 0; round < 50; round += 1) {
        let asked: Promise<string[]> = Promise.resolve([]);
        await failure(
          transact(async (tx) => {
            await insert(tx, 1);
            asked = Promise.all(checks.map((check) => ask(check, id)));
            await until('both wait', async () => ((await suite.waiting()) ?? 2) === 2);
            throw new Error('mine');
          }),
        );
        expect(['rollback', 'unknown']).toEqual(expect.arrayContaining(await asked));
        expect(await Promise.all(checks.map((check) => ask(check, id)))).toEqual([
          'rollback',
          'rollback',
        ]);
        expect(await suite.barrier(id)).toBe('rollback');
      }
      for (const { open, hold } of waiting) {
        expect(open()).toBe(1);
        (await hold())();
      }
      await nothingIsOpen();
    });

    test('a check answers unknown without a table and without a free connection', async () => {
      const single = suite.connect({ connections: 1 });
      const check = checkOf(single.database);
      await suite.observe('alter table escrow_barrier rename to hidden');
      try {
        expect(await ask(check, uuidv7())).toBe('unknown');
      } finally {
        await suite.observe('alter table hidden rename to escrow_barrier');
      }
      const giveBack = await single.hold();
      expect(await ask(check, uuidv7())).toBe('unknown');
      giveBack();
      expect(await ask(check, uuidv7())).toBe('rollback');
    });
  });
}

import {
  ensureConsumedTable,
  ensureLatestTable,
  latest,
  once,
  onceBatch,
} from '@escrowmq/consumer';
import { fromMysql2 } from '@escrowmq/database/mysql2';
import {
  createCheckHandler,
  createOutboxRelay,
  createProducer,
  ensureOutboxTable,
} from '@escrowmq/producer';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import type { Pool, PoolConnection, RowDataPacket } from 'mysql2/promise';
import { startFakeBroker } from '../support/fake-broker.js';
import {
  deleteOrdered,
  KeyWatch,
  keyedMessages,
  numbersTo,
  openOrderedBench,
  publishKeyed,
} from '../support/ordered-bench.js';
import {
  ask,
  type ProducerDatabase,
  recordingLogger,
  SIGNING_SECRET,
  startProducerDatabase,
} from '../support/producer-database.js';
import { newTransactionId } from '../support/publish.js';
import { deferred } from '../support/ready.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * V01: two instances of a service on one row. MariaDB refuses with 1020 what changes a row that
 * somebody else has changed since the transaction first looked (innodb_snapshot_isolation, the default
 * from 11.6 on), and rolls back as after a deadlock; under SERIALIZABLE a statement looks before it
 * waits for a lock, so that the wait alone is enough. Where the server has no such setting the same
 * ends in other ways, and just as well.
 */

const group = 'phone-index';
const newMessage = () => ({ id: `${newTransactionId()}-0`, group });
const CHANGED_SINCE_READ = 1020;
const { logger, records } = recordingLogger();

let database: ProducerDatabase;
/** The server tells of rows that have changed under a snapshot. */
let tellsOfChanges: boolean;

beforeAll(async () => {
  database = await startProducerDatabase();
  await ensureConsumedTable(database.observer);
  await ensureLatestTable(database.observer);
  await ensureOutboxTable(database.observer);
  await database.observer.query('create table counter (id int primary key, total int not null)');
  const [rows] = await database.observer.query<RowDataPacket[]>(
    "show variables like 'innodb_snapshot_isolation'",
  );
  tellsOfChanges = rows.length > 0;
});
afterAll(() => database.close());

beforeEach(async () => {
  records.length = 0;
  await database.observer.query('delete from account');
  await database.observer.query('replace into counter values (1, 0)');
});

async function total(): Promise<number> {
  const [rows] = await database.observer.query<RowDataPacket[]>('select total from counter');
  return rows[0]!.total;
}

/** An instance of a service: its pool, and the errors that its database gave it. */
interface Instance {
  pool: Pick<Pool, 'getConnection'>;
  refused: number[];
}

function startInstance(isolation: string): Instance {
  const refused: number[] = [];
  const pool = database.pool();
  pool.on('connection', (connection) => {
    // Of the server's default on MariaDB 11.8; MySQL does not know it.
    const raw = connection as unknown as { query(sql: string, done: () => void): void };
    raw.query('set session innodb_snapshot_isolation = on', () => undefined);
    raw.query(`set session transaction isolation level ${isolation}`, () => undefined);
  });
  const watched = (connection: PoolConnection) =>
    new Proxy(connection, {
      get(target, name) {
        const value: unknown = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => {
          const answer: unknown = Reflect.apply(value, target, args);
          if (name === 'query' || name === 'execute') {
            (answer as Promise<unknown>).catch((error) => refused.push(error.errno));
          }
          return answer;
        };
      },
    });
  return { pool: { getConnection: async () => watched(await pool.getConnection()) }, refused };
}

/** Waits until a statement that begins so waits on the database, for the row of somebody else. */
const waits = (statement: string) =>
  until(`${statement} waits`, async () => {
    const [rows] = await database.observer.query<RowDataPacket[]>(
      'select id from information_schema.processlist where db = database() and info like ?',
      [`${statement}%`],
    );
    return rows.length > 0;
  });

describe.each(['repeatable read', 'serializable'])('V01: under %s', (isolation) => {
  let one: Instance;
  let other: Instance;
  beforeEach(() => {
    one = startInstance(isolation);
    other = startInstance(isolation);
  });

  /** What waits for a row is refused under SERIALIZABLE as soon as the row has changed. */
  function expectRefusal({ refused }: Instance): void {
    if (tellsOfChanges && isolation === 'serializable') {
      expect(refused).toContain(CHANGED_SINCE_READ);
    }
  }

  const count = (tx: Pick<PoolConnection, 'query'>) =>
    tx.query('update counter set total = total + 1 where id = 1');

  type Apply = (instance: Instance, work: (tx: PoolConnection) => Promise<unknown>) => unknown;
  const [message, shared, [first, last]] = [
    newMessage(),
    newMessage(),
    [newMessage(), newMessage()],
  ];
  const news = newMessage();
  const about = (key: string, at: number) => ({ key: `${isolation} ${key}`, at });
  const onceOf =
    (each: typeof message): Apply =>
    ({ pool }, work) =>
      once(pool, each, (tx) => work(tx as PoolConnection));
  const batchOf =
    (...each: (typeof message)[]): Apply =>
    ({ pool }, work) =>
      onceBatch(pool, each, (tx) => work(tx as PoolConnection));
  const latestOf =
    (each: typeof message, key: string, at: number): Apply =>
    ({ pool }, work) =>
      latest(pool, each, about(key, at), (tx) => work(tx as PoolConnection));

  test.each<[string, Apply, Apply, unknown, number]>([
    ['once, the same message', onceOf(message), onceOf(message), 'duplicate', 1],
    [
      'onceBatch, one message in common',
      batchOf(first, shared),
      batchOf(shared, last),
      { applied: [last.id], duplicates: [shared.id] },
      2,
    ],
    ['latest, the same message', latestOf(news, 'a', 2), latestOf(news, 'a', 2), 'duplicate', 1],
    ['latest, newer', latestOf(newMessage(), 'b', 1), latestOf(newMessage(), 'b', 2), 'applied', 2],
    [
      'latest, older',
      latestOf(newMessage(), 'c', 2),
      latestOf(newMessage(), 'c', 1),
      'outdated',
      1,
    ],
  ])(
    '%s: whoever waited for the other sees what it did',
    async (_what, mine, theirs, said, works) => {
      const working = deferred();
      const release = deferred();
      const applied = mine(one, async (tx) => {
        await count(tx);
        working.resolve();
        await release.promise;
      });
      await working.promise;
      const waiting = theirs(other, count);
      await waits('insert into escrow_');
      release.resolve();
      await applied;
      expect(await waiting).toEqual(said);
      expect(await total()).toBe(works);
      expectRefusal(other);
    },
  );

  test('work on a row that has changed since it was read is rolled back whole, and thrown', async () => {
    const messages = [newMessage(), newMessage()];
    const bothHaveRead = deferred();
    let reads = 0;
    const attempt = (instance: Instance, index: number) =>
      latest(instance.pool, messages[index]!, about(`row ${index}`, 1), async (tx) => {
        await tx.query('select total from counter where id = 1');
        reads += 1;
        if (reads === 2) bothHaveRead.resolve();
        await bothHaveRead.promise;
        await count(tx as PoolConnection);
      });
    const ended = await Promise.allSettled([attempt(one, 0), attempt(other, 1)]);
    const failed = ended.flatMap((end, index) =>
      end.status === 'rejected' ? [{ end, index }] : [],
    );
    for (const { end, index } of failed) {
      expect([CHANGED_SINCE_READ, 1213]).toContain(end.reason.errno);
      expect(await attempt(other, index)).toBe('applied');
    }
    if (tellsOfChanges) expect(failed).toHaveLength(1);
    expect(await total()).toBe(2);
    // What was rolled back left no row behind that says otherwise.
    for (const index of [0, 1]) expect(await attempt(one, index)).toBe('duplicate');
  });

  test('of two local transactions that change what both have read, one is rolled back on both sides', async () => {
    const broker = await startFakeBroker();
    const producer = createProducer({
      brokers: [broker.address],
      producerGroup: 'accounts',
      logger,
    });
    const bothHaveRead = deferred();
    let reads = 0;
    const attempt = ({ pool }: Instance) =>
      producer.transaction(pool as Pool, { topic: 'user', data: 1 }, async (tx) => {
        await tx.query('select total from counter where id = 1');
        reads += 1;
        if (reads === 2) bothHaveRead.resolve();
        await bothHaveRead.promise;
        await count(tx);
      });
    try {
      const ended = await Promise.allSettled([attempt(one), attempt(other)]);
      const failed = ended.filter((end) => end.status === 'rejected');
      for (const { reason } of failed) expect([CHANGED_SINCE_READ, 1213]).toContain(reason.errno);
      if (tellsOfChanges) expect(failed).toHaveLength(1);
      const committed = [...broker.transactions.values()].filter(
        ({ state }) => state === 'committed',
      );
      expect(committed).toHaveLength(2 - failed.length);
      expect(await total()).toBe(2 - failed.length);
      expect(await attempt(other)).toMatchObject({ outcome: 'committed' });
    } finally {
      await producer.close();
      await broker.close();
    }
  });

  test('a check that waited for the row of a local transaction answers what became of it', async () => {
    const broker = await startFakeBroker();
    const producer = createProducer({
      brokers: [broker.address],
      producerGroup: 'accounts',
      logger,
    });
    const handler = createCheckHandler({
      signingSecret: SIGNING_SECRET,
      database: fromMysql2(other.pool as Pool),
      logger,
    });
    // Once, at the first check, it asks which database this is.
    await ask(handler, newTransactionId());
    try {
      let asked: Promise<string> | undefined;
      const { id } = await producer.transaction(
        one.pool as Pool,
        { topic: 'user', data: 1 },
        async (tx, info) => {
          await tx.query('insert into account (id) values (1)');
          asked = ask(handler, info.id);
          await waits('insert into escrow_barrier');
        },
      );
      expect(await asked).toBe('commit');
      expect(await database.barrier(id)).toBe('commit');
      expectRefusal(other);
    } finally {
      await producer.close();
      await broker.close();
    }
  });

  test('a relay of an outbox that waited for another one leaves to it what it has taken', async () => {
    const broker = await startFakeBroker();
    const settings = { brokers: [broker.address], producerGroup: 'accounts', logger };
    const producer = createProducer({
      ...settings,
      brokers: ['http://127.0.0.1:1'],
      outbox: true,
      closeTimeoutMs: 1,
    });
    const relay = createOutboxRelay({ ...settings, database: other.pool as Pool });
    const connection = await one.pool.getConnection();
    try {
      await producer.transaction(one.pool as Pool, { topic: 'user', data: 1 }, (tx) =>
        tx.query('insert into account (id) values (1)'),
      );
      const changeDue = (when: string) =>
        connection.query(`update escrow_outbox set due_at = ${when} where state = 'unsent'`);
      await changeDue('0');
      await connection.query('start transaction');
      await changeDue('due_at + 9000000000000');
      const passing = relay.runOnce();
      await waits('update escrow_outbox');
      await connection.query('commit');
      expect(await passing).toEqual({ sent: 0, parked: 0, putOff: 0 });
      expectRefusal(other);
      await changeDue('0');
      expect(await relay.runOnce()).toEqual({ sent: 1, parked: 0, putOff: 0 });
    } finally {
      connection.release();
      await relay.close();
      await producer.close();
      await broker.close();
    }
  });

  test('an ordered group whose work meets others applies every message once, in order', async () => {
    const retryDelaysMs = Array(10).fill(10);
    const { bench, options } = await openOrderedBench(rabbitmqUrl(), retryDelaysMs);
    const keys = ['key-0', 'key-1'];
    const watch = new KeyWatch();
    const bothHaveRead = deferred();
    let reads = 0;
    try {
      await bench.consumer.subscribe(options, async (message) => {
        const done = watch.begin(message);
        try {
          await once(one.pool, message, async (tx) => {
            await tx.query('select total from counter where id = 1');
            reads += 1;
            if (reads === keys.length) bothHaveRead.resolve();
            await bothHaveRead.promise;
            await count(tx);
          });
          done('done');
        } catch (error) {
          done('failed');
          throw error;
        }
      });
      await publishKeyed(bench.channel, keyedMessages(bench.topic, keys, 4));
      await until('all is applied', () => watch.isDone(keys, 4));
      for (const key of keys) expect(watch.done(key)).toEqual(numbersTo(4));
      expect(watch.overlaps).toEqual([]);
      expect(await total()).toBe(8);
      if (tellsOfChanges) expect(one.refused).toContain(CHANGED_SINCE_READ);
    } finally {
      await bench.close();
      await deleteOrdered(rabbitmqUrl(), options);
    }
  });
});

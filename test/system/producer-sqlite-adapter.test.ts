import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fromSqlite } from '@escrowmq/database/sqlite';
import { createProducer, ensureBarrierTable, type Producer } from '@escrowmq/producer';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { openSqlite, type SqliteConnection } from '../../broker/src/store/sqlite/driver.js';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { deferred } from '../support/ready.js';

const message = { topic: 'user', data: 7 };
const LIMITS = { connectionTimeoutMs: 10_000, commitTimeoutMs: 10_000 };
const { logger } = recordingLogger();
let folder: string;
let path: string;
let observer: SqliteConnection;
let connections: SqliteConnection[];
let broker: FakeBroker;
let producer: Producer;

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'escrowmq-sqlite-'));
  path = join(folder, 'app.db');
  connections = [];
  observer = open();
  observer.exec('create table account (id integer primary key)');
  await ensureBarrierTable(database());
  broker = await startFakeBroker();
  producer = createProducer({ brokers: [broker.address], producerGroup: 'accounts', logger });
});
afterEach(async () => {
  await producer.close();
  await broker.close();
  for (const connection of connections) if (isOpen(connection)) connection.close();
  rmSync(folder, { recursive: true });
});

/** In SQLite's default journal mode, where readers and writers are in each other's way. */
function open(): SqliteConnection {
  const connection = openSqlite(path);
  connection.exec('pragma busy_timeout = 0');
  connections.push(connection);
  return connection;
}

/** better-sqlite3 and node:sqlite have other names for the same. */
const isOpen = (connection: SqliteConnection) =>
  Reflect.get(connection, 'open') === true || Reflect.get(connection, 'isOpen') === true;

/** With a busy timeout, as better-sqlite3 has by itself: it is not to be waited for. */
const database = () =>
  fromSqlite(() => {
    const connection = open();
    connection.exec('pragma busy_timeout = 5000');
    return connection;
  });
const accounts = () =>
  (observer.prepare('select id from account order by id').all() as { id: number }[]).map(
    ({ id }) => id,
  );
const insert = (tx: SqliteConnection, id: number) => {
  tx.prepare('insert into account (id) values (?)').run(id);
};

test('a database in memory is refused, whatever it is called', async () => {
  for (const name of [':memory:', '']) {
    const inMemory = fromSqlite(() => openSqlite(name));
    await expect(ensureBarrierTable(inMemory)).rejects.toMatchObject({
      code: 'INVALID_CONFIGURATION',
      message: expect.stringContaining('in memory'),
    });
  }
});

test('what is neither a connection nor a function that opens one is refused with a sentence', () => {
  for (const given of [undefined, 'app.db', {}]) {
    expect(() => fromSqlite(given as SqliteConnection)).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIGURATION' }),
    );
  }
});

test('a transaction waits for the lock of another process while the event loop goes on', async () => {
  const own = database();
  observer.exec('begin immediate');
  let turns = 0;
  const ticking = setInterval(() => {
    turns += 1;
    if (turns === 20) observer.exec('commit');
  }, 1);
  await own.session((executor) => executor.execute('insert into account (id) values (1)'), LIMITS);
  clearInterval(ticking);
  expect(turns).toBeGreaterThanOrEqual(20);
  expect(accounts()).toEqual([1]);
});

test('a lock that is not given back fails the call within its limit', async () => {
  observer.exec('begin immediate');
  const startedAt = performance.now();
  const work = database().session(async () => {}, { ...LIMITS, connectionTimeoutMs: 200 });
  await expect(work).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
  // Not the 5 s of the connection's own busy timeout.
  expect(performance.now() - startedAt).toBeLessThan(4_500);
  observer.exec('rollback');
});

test('transactions of one process take turns in the order they came, on one connection', async () => {
  const own = database();
  const order: number[] = [];
  const before = connections.length;
  await Promise.all(
    [1, 2, 3, 4, 5].map((n) =>
      own.session(async (executor) => {
        await executor.execute('insert into account (id) values (?)', [n]);
        await new Promise(setImmediate);
        order.push(n);
      }, LIMITS),
    ),
  );
  expect(order).toEqual([1, 2, 3, 4, 5]);
  expect(connections.length - before).toBe(1);
});

test('one that waited too long for its turn passes it on', async () => {
  const own = database();
  const gate = deferred();
  const first = own.session(() => gate.promise, LIMITS);
  const hasty = own.session(async () => {}, { ...LIMITS, connectionTimeoutMs: 20 });
  const patient = own.session(async () => 'done', LIMITS);
  await expect(hasty).rejects.toMatchObject({ code: 'DATABASE_UNAVAILABLE' });
  gate.resolve();
  await first;
  expect(await patient).toBe('done');
});

test('a COMMIT waits for a reader, and goes on when the reader has gone', async () => {
  observer.exec('begin');
  observer.prepare('select * from account').all();
  setTimeout(() => observer.exec('commit'), 50);
  const result = await producer.transaction(database(), message, async (tx) => insert(tx, 1), {});
  expect(result).toMatchObject({ outcome: 'committed' });
  expect(accounts()).toEqual([1]);
});

test('a COMMIT that a reader keeps waiting for too long is rolled back, and nothing is open', async () => {
  const own = database();
  await ensureBarrierTable(own);
  observer.exec('begin');
  observer.prepare('select * from account').all();
  const limits = { ...LIMITS, commitTimeoutMs: 100 };
  const work = own.session(
    (executor) => executor.execute('insert into account (id) values (1)'),
    limits,
  );
  await expect(work).rejects.toMatchObject({ message: 'database is locked' });
  observer.exec('commit');
  await own.session((executor) => executor.execute('insert into account (id) values (2)'), limits);
  expect(accounts()).toEqual([2]);
});

test('a statement that the callback kept is refused after its end, as is the connection', async () => {
  let kept: SqliteConnection | undefined;
  let statement: ReturnType<SqliteConnection['prepare']> | undefined;
  await producer.transaction(database(), message, async (tx) => {
    kept = tx;
    statement = tx.prepare('insert into account (id) values (?)');
    statement.run(1);
  });
  const refused = expect.objectContaining({ code: 'TRANSACTION_MISUSED' });
  expect(() => kept?.exec('select 1')).toThrow(refused);
  expect(() => statement?.run(2)).toThrow(refused);
  expect(accounts()).toEqual([1]);
});

test('a callback that closes the connection fails, and the next one gets another', async () => {
  const own = database();
  const closing = producer.transaction(own, message, async (tx) => {
    insert(tx, 1);
    tx.close();
  });
  await expect(closing).rejects.toHaveProperty('message');
  await producer.transaction(own, message, async (tx) => insert(tx, 2));
  expect(accounts()).toEqual([2]);
});

test.each([
  ['commit', 'committed'],
  ['rollback', 'rolledBack'],
])(
  'a connection with an open transaction is enlisted, and settles after its %s',
  async (end, outcome) => {
    const own = open();
    own.exec('begin');
    const escrow = await producer.enlist(fromSqlite(own), message);
    insert(own, 1);
    await escrow.verify();
    own.exec(end);
    expect(await escrow.settle(database())).toEqual({ outcome, id: escrow.id });
  },
);

test('a connection without an open transaction is not enlisted, and nothing is written', async () => {
  await expect(producer.enlist(fromSqlite(open()), message)).rejects.toMatchObject({
    code: 'TRANSACTION_MISUSED',
  });
  expect(broker.transactions.size).toBe(0);
  expect(observer.prepare('select * from escrow_barrier').all()).toEqual([]);
});

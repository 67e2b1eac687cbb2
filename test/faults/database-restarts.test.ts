import { copyFileSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type PrivateMysql, startPrivateMysql } from '@escrowmq/local-servers';
import {
  createCheckHandler,
  createProducer,
  ensureBarrierTable,
  nodeCheckListener,
  type Producer,
} from '@escrowmq/producer';
import { afterAll, afterEach, beforeAll, expect, test } from '@jest/globals';
import { createConnection, createPool, type Pool, type RowDataPacket } from 'mysql2/promise';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

const SILENT = { warn: () => undefined, error: () => undefined };
const MESSAGE_ID_END = /-\d+$/;

let mysql: PrivateMysql;
beforeAll(async () => {
  mysql = await startPrivateMysql();
});
afterAll(() => mysql.remove());

async function start(store: string): Promise<BrokerProcess> {
  const broker = await startBrokerProcess({ store, rabbitmq: rabbitmqUrl() });
  clean.push(() => broker.kill());
  return broker;
}

async function bind(topic: string): Promise<BoundQueue> {
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  clean.push(() => queue.close());
  return queue;
}

/** A producer on a database of its own, whose checks are answered. */
async function startProducer(broker: BrokerProcess, databaseUrl: string) {
  const pool = createPool({ uri: databaseUrl, connectionLimit: 8 });
  clean.push(() => pool.end());
  await ensureBarrierTable(pool);
  await pool.query(
    'create table account (id int auto_increment primary key, transaction char(36))',
  );
  const producer = createProducer({
    brokers: [broker.url],
    producerGroup: 'accounts',
    logger: SILENT,
  });
  clean.push(() => producer.close());
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  clean.push(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  const checkUrls = [`http://127.0.0.1:${port}/check`];
  const policy = { firstDelayMs: 500, delayMsMax: 1_000, unknownMax: 1_000 };
  const { signingSecret } = await registerGroup(broker.url, 'accounts', checkUrls, policy);
  const check = createCheckHandler({
    signingSecret: String(signingSecret),
    database: pool,
    logger: SILENT,
  });
  server.on('request', nodeCheckListener(check));
  return { pool, producer };
}

/** Registers accounts, one after the other and side by side, until it is stopped. */
function keepRegistering(producer: Producer, pool: Pool, topic: string) {
  let stopped = false;
  let committed = 0;
  async function worker(): Promise<void> {
    while (!stopped) {
      // What failed is rolled back, and what is unknown the databases will tell.
      await producer
        .transaction(pool, { topic, data: 1 }, (tx, { id }) =>
          tx.execute('insert into account (transaction) values (?)', [id]),
        )
        .then(
          () => {
            committed += 1;
          },
          () => undefined,
        );
    }
  }
  const workers = Array.from({ length: 6 }, worker);
  const stop = async () => {
    stopped = true;
    await Promise.all(workers);
  };
  // A test that fails must not leave them at it.
  clean.push(stop);
  return {
    get committed() {
      return committed;
    },
    stop,
  };
}

/** In the end the accounts and the messages are the same transactions. */
async function expectAgreement(pool: Pool, queue: BoundQueue, broker: BrokerProcess) {
  const accounts = async () => {
    const [rows] = await pool.query<RowDataPacket[]>('select transaction from account');
    return rows.map(({ transaction }) => String(transaction)).sort();
  };
  const told = () =>
    [...new Set(queue.messageIds().map((id) => id.replace(MESSAGE_ID_END, '')))].sort();
  const open = async () => {
    const states = ['prepared', 'committed', 'parked'].map((state) =>
      call(`${broker.url}/v1/transactions?state=${state}`),
    );
    const answers = await Promise.all(states);
    return answers.flatMap(({ body }) => body.transactions ?? [undefined]).length;
  };
  await until('nothing is open', async () => (await open()) === 0, 40_000);
  await until('every message is here', async () => told().length >= (await accounts()).length);
  expect(told()).toEqual(await accounts());
}

test("a producer's database that is killed in the middle of COMMITs, three times, agrees with its messages (F17)", async () => {
  const broker = await start(await freshMysqlDatabase());
  const topic = uniqueName('account');
  const queue = await bind(topic);
  const { pool, producer } = await startProducer(broker, await mysql.createDatabase());
  const registering = keepRegistering(producer, pool, topic);
  for (let kill = 1; kill <= 3; kill += 1) {
    const before = registering.committed;
    await until('transactions commit', () => registering.committed > before + 50, 30_000);
    await mysql.kill();
    await mysql.restart();
  }
  await registering.stop();
  await expectAgreement(pool, queue, broker);
});

test('connections of the broker that are killed in the middle of statements, thirty times, cost no transaction (F45)', async () => {
  const store = await mysql.createDatabase();
  const broker = await start(store);
  const topic = uniqueName('account');
  const queue = await bind(topic);
  const { pool, producer } = await startProducer(broker, await freshMysqlDatabase());
  const registering = keepRegistering(producer, pool, topic);
  const killer = await createConnection(mysql.url);
  clean.push(() => killer.end());
  let killed = 0;
  while (killed < 30) {
    const sql = 'select id from information_schema.processlist where db = ? and command <> ?';
    const name = new URL(store).pathname.slice(1);
    const [rows] = await killer.query<RowDataPacket[]>(sql, [name, 'Sleep']);
    for (const { id } of rows) {
      // It may have ended by itself.
      const done = await killer.query(`kill ${id}`).catch(() => undefined);
      if (done !== undefined) killed += 1;
    }
  }
  const before = registering.committed;
  await until('transactions go on', () => registering.committed > before + 50, 30_000);
  await registering.stop();
  await expectAgreement(pool, queue, broker);
});

test('a store that is set back to an older copy forwards what is committed from then on, and repeats what it forgot (F28, F80)', async () => {
  const store = await freshStore('sqlite');
  clean.push(() => store.remove());
  const file = store.url.slice('sqlite:'.length);
  const broker = await start(store.url);
  const topic = uniqueName('account');
  const queue = await bind(topic);
  const { pool, producer } = await startProducer(broker, await freshMysqlDatabase());
  const send = async () => (await producer.send({ messages: [{ topic, data: 1 }] })).id;
  const kept = await producer.prepare({ messages: [{ topic, data: 1 }], checkAfterMs: 60_000 });

  expect(await broker.stop()).toBe(0);
  copyFileSync(file, `${file}.copy`);
  await broker.start();
  const forgotten = await send();
  await until('what is forgotten later has arrived', () => queue.received.length === 1);
  const result = await producer.transaction(pool, { topic, data: 2 }, async (tx, { id }) => {
    await tx.execute('insert into account (transaction) values (?)', [id]);
    await until('it is prepared', async () => (await view(broker.url, id)).state === 'prepared');
    expect(await broker.stop()).toBe(0);
    for (const end of ['', '-wal', '-shm']) rmSync(`${file}${end}`, { force: true });
    copyFileSync(`${file}.copy`, file);
    await broker.start();
  });
  expect(result).toMatchObject({ outcome: 'committed', acknowledged: true });
  await producer.commit(kept.id);
  // Nobody knows of it any more, and a caller who never heard of it sends it again.
  await expect(producer.query(forgotten)).rejects.toMatchObject({ code: 'TRANSACTION_NOT_FOUND' });
  await producer.send({ id: forgotten, messages: [{ topic, data: 1 }] });
  await until('all of it has arrived', () => queue.received.length === 4);
  expect(queue.messageIds().sort()).toEqual(
    [forgotten, forgotten, kept.id, result.id].map((id) => `${id}-0`).sort(),
  );
});

test('a broker goes on while a newer one has changed the schema, and does not start on it again (F48)', async () => {
  const store = await mysql.createDatabase();
  const broker = await start(store);
  const topic = uniqueName('account');
  const queue = await bind(topic);
  await registerGroup(broker.url, 'accounts');
  const newer = await createConnection(store);
  clean.push(() => newer.end());
  // What a later version does first: a column with a default, and its number.
  await newer.query("alter table escrow_transaction add column later varchar(20) default 'new'");
  await newer.query(
    "insert into escrow_schema (version, name, applied_at) values (999, 'later', 0)",
  );
  const messages = [{ topic, data: 1 }];
  const prepared = await call(`${broker.url}/v1/transactions`, 'POST', {
    producerGroup: 'accounts',
    messages,
  });
  expect(prepared.status).toBe(201);
  const { id } = prepared.body;
  expect((await call(`${broker.url}/v1/transactions/${id}/commit`, 'POST')).status).toBe(200);
  await until('it is forwarded', async () => (await view(broker.url, id)).state === 'forwarded');
  await until('it has arrived', () => queue.received.length > 0);
  expect(queue.messageIds()).toEqual([`${id}-0`]);
  expect(await broker.stop()).toBe(0);
  await expect(broker.start()).rejects.toThrow(/SCHEMA_TOO_NEW|newer/);
});

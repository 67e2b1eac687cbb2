import { type ChildProcess, execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect, type Socket } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { createProducer } from '@escrowmq/producer';
import { afterEach, expect, test } from '@jest/globals';
import { createConnection, type ResultSetHeader, type RowDataPacket } from 'mysql2/promise';
import { bindQueue } from '../support/bound-queue.js';
import { call, registerGroup } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { decide, startCheckEndpoint } from '../support/check-endpoint.js';
import { freshMysqlDatabase, rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const clean: (() => unknown)[] = [];
afterEach(async () => {
  for (const step of clean.splice(0).reverse()) await step();
});

/** A broker, and its process as it is at the moment. */
async function start(store: string): Promise<BrokerProcess & { child(): ChildProcess }> {
  let child: ChildProcess | undefined;
  const broker = await startBrokerProcess({
    store,
    rabbitmq: rabbitmqUrl(),
    onLog: (_entry, from) => {
      child = from;
    },
  });
  clean.push(() => broker.kill());
  await registerGroup(broker.url, 'accounts');
  return { ...broker, child: () => child as ChildProcess };
}

async function startOnSqlite() {
  const store = await freshStore('sqlite');
  clean.push(() => store.remove());
  return start(store.url);
}

/** Sockets that say the beginning of a request and nothing more. */
async function openSlowly(broker: BrokerProcess, count: number): Promise<Socket[]> {
  const { port } = new URL(broker.url);
  const sockets = Array.from({ length: count }, () => {
    const socket = connect(Number(port), '127.0.0.1');
    // A broker that has no room for it may say so by a reset.
    socket.on('error', () => undefined);
    // What it is told is read, or its end would never come.
    socket.resume();
    socket.write('POST /v1/transactions HTTP/1.1\r\nhost: broker\r\n');
    return socket;
  });
  clean.push(() => {
    for (const socket of sockets) socket.destroy();
  });
  await until('all are connected or refused', () => sockets.every(({ connecting }) => !connecting));
  return sockets;
}

const send = (broker: BrokerProcess, topic: string) =>
  call(`${broker.url}/v1/messages`, 'POST', {
    producerGroup: 'accounts',
    messages: [{ topic, data: 1 }],
  });

async function medianSendMs(broker: BrokerProcess, topic: string): Promise<number> {
  const times: number[] = [];
  for (let n = 0; n < 100; n += 1) {
    const startedAt = performance.now();
    expect((await send(broker, topic)).status).toBe(201);
    times.push(performance.now() - startedAt);
  }
  return times.sort((a, b) => a - b)[50] ?? 0;
}

test('a thousand callers who never finish their headers hold up nobody, and are cut off (F08)', async () => {
  const broker = await startOnSqlite();
  const topic = uniqueName('user');
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  clean.push(() => queue.close());
  await medianSendMs(broker, topic);
  const before = await medianSendMs(broker, topic);
  const sockets = await openSlowly(broker, 1_000);
  const meanwhile = await medianSendMs(broker, topic);
  // About as long, but for what others do on a busy machine meanwhile.
  expect(meanwhile).toBeLessThan(5 * before + 50);
  // After 10 s, and it is looked for those every few seconds.
  await until('all are cut off', () => sockets.every(({ closed }) => closed), 30_000);
});

test('a broker without a file handle left takes no more callers, loses nothing, and goes on when it has one (F78)', async () => {
  const broker = await startOnSqlite();
  const topic = uniqueName('user');
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  clean.push(() => queue.close());
  const acknowledged = [(await send(broker, topic)).body.id];
  const { pid } = broker.child();
  execFileSync('prlimit', ['--pid', String(pid), '--nofile=64:64']);
  const sockets = await openSlowly(broker, 200);
  await until('some are turned away', () => sockets.some(({ closed }) => closed));
  // Who has a connection already may be served; what is acknowledged then has to arrive as well.
  for (let n = 0; n < 20; n += 1) {
    const answer = await Promise.race([
      send(broker, topic).catch(() => undefined),
      pause(500, undefined, { ref: false }),
    ]);
    if (answer?.status === 201) acknowledged.push(answer.body.id);
  }
  for (const socket of sockets) socket.destroy();
  await until('it takes calls again', async () => {
    const answer = await send(broker, topic).catch(() => undefined);
    if (answer?.status !== 201) return false;
    acknowledged.push(answer.body.id);
    return true;
  });
  const received = () => new Set(queue.messageIds());
  await until('all that was acknowledged is here', () =>
    acknowledged.every((id) => received().has(`${id}-0`)),
  );
  expect(broker.child().pid).toBe(pid);
  expect(await broker.stop()).toBe(0);
});

test('two brokers that are restarted in turn, six times under load, cost no call and no message (F79)', async () => {
  const store = await freshMysqlDatabase();
  const brokers = [await start(store), await start(store)] as const;
  const topic = uniqueName('user');
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  clean.push(() => queue.close());
  const producer = createProducer({
    brokers: brokers.map(({ url }) => url),
    producerGroup: 'accounts',
    prepareTimeoutMs: 20_000,
    verdictTimeoutMs: 20_000,
  });
  clean.push(() => producer.close());
  const committed: string[] = [];
  let stopped = false;
  async function worker(): Promise<void> {
    while (!stopped) {
      const { id } = await producer.prepare({ messages: [{ topic, data: 1 }] });
      await producer.commit(id);
      committed.push(id);
    }
  }
  /** Long before a lease is over that the broker would have left behind: it is 30 s long. */
  const hasArrived = (ids: string[]) =>
    until(
      'all that was committed is here',
      () => {
        const received = new Set(queue.messageIds());
        return ids.every((id) => received.has(`${id}-0`));
      },
      25_000,
    );
  const workers = Promise.all(Array.from({ length: 16 }, worker));
  for (let restart = 0; restart < 6; restart += 1) {
    const broker = brokers[restart % 2 === 0 ? 0 : 1];
    const before = committed.length;
    await until('calls go on', () => committed.length > before + 100);
    expect(await broker.stop()).toBe(0);
    await hasArrived(committed.slice());
    await broker.start();
  }
  stopped = true;
  await workers;
  await hasArrived(committed);
  expect(new Set(queue.messageIds())).toEqual(new Set(committed.map((id) => `${id}-0`)));
});

const STORM = 100_000;
/** One in ten is of a group that answers; the others hang. */
const QUICK_SHARE = 10;
const RSS_MIB_MAX = 300;
/** Enough to see that it does not stop. */
const FORWARDED_MIN = 30_000;
const CHECKED_MIN = 300;

test(`a start with ${STORM} checks and ${STORM} forwards due is bounded in memory, goes by age, and is fair to groups (F47)`, async () => {
  const store = await freshMysqlDatabase();
  const broker = await start(store);
  const quick = await startCheckEndpoint();
  quick.answer = decide('rollback');
  const hanging = createServer(() => undefined).listen(0, '127.0.0.1');
  await new Promise((resolve) => hanging.once('listening', resolve));
  clean.push(
    () => quick.close(),
    () => {
      hanging.closeAllConnections();
      hanging.close();
    },
  );
  const { port } = hanging.address() as { port: number };
  await registerGroup(broker.url, 'hanging', [`http://127.0.0.1:${port}/check`]);
  await registerGroup(broker.url, 'quick', [quick.url]);
  const topic = uniqueName('user');
  const queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
  clean.push(() => queue.close());
  await fill(store, broker, topic);

  await broker.start();
  const startedAt = performance.now();
  await until('many are forwarded', () => queue.received.length >= FORWARDED_MIN, 60_000);
  await until('many are checked', () => quick.asked.length >= CHECKED_MIN, 60_000);
  const tookMs = performance.now() - startedAt;
  expect(rssMibMax(broker.child())).toBeLessThan(RSS_MIB_MAX);
  // The last digits of an id are its place by age.
  const places = queue
    .messageIds()
    .slice(0, FORWARDED_MIN / 2)
    .map((id) => Number.parseInt(id.slice(-14, -2), 16));
  expect(Math.max(...places)).toBeLessThan(FORWARDED_MIN);
  expect(tookMs).toBeLessThan(60_000);
  expect(await broker.stop()).toBe(0);
});

/** Puts the storm into the store of a broker that is stopped then, as copies of one row each. */
async function fill(store: string, broker: BrokerProcess, topic: string): Promise<void> {
  const { body } = await call(`${broker.url}/v1/transactions`, 'POST', {
    producerGroup: 'quick',
    checkAfterMs: 3_600_000,
    messages: [{ topic, data: 1 }],
  });
  expect(await broker.stop()).toBe(0);
  const connection = await createConnection(store);
  clean.push(() => connection.end());
  const [columns] = await connection.query<RowDataPacket[]>('show columns from escrow_transaction');
  const copies = async (changes: Record<string, string>) => {
    const values = columns.map(({ Field: name }) => changes[String(name)] ?? `\`${name}\``);
    const [{ affectedRows }] = await connection.query<ResultSetHeader>(
      `insert into escrow_transaction
       select ${values.join(', ')} from escrow_transaction,
         json_table(?, '$[*]' columns (seq int path '$')) as storm
       where id = unhex(replace(?, '-', ''))`,
      [JSON.stringify(Array.from({ length: STORM }, (_, n) => n + 1)), body.id],
    );
    expect(affectedRows).toBe(STORM);
  };
  const idOf = (kind: string) =>
    `unhex(concat(lpad(hex(prepared_at), 12, '0'), '7${kind}', '8000', lpad(hex(storm.seq), 12, '0')))`;
  const overdue = `prepared_at - ${STORM} + storm.seq`;
  await copies({
    id: idOf('00c'),
    due_at: overdue,
    producer_group: `if(storm.seq % ${QUICK_SHARE} = 0, 'quick', 'hanging')`,
  });
  await copies({
    id: idOf('00f'),
    due_at: overdue,
    state: "'committed'",
    decision: "'commit'",
    decided_at: 'prepared_at',
    decided_by: `'{"by":"producer"}'`,
  });
}

const HIGHEST_RSS = /VmHWM:\s+(\d+) kB/;

function rssMibMax({ pid }: ChildProcess): number {
  const [, kib] = HIGHEST_RSS.exec(readFileSync(`/proc/${pid}/status`, 'utf8')) ?? [];
  return Number(kib) / 1024;
}

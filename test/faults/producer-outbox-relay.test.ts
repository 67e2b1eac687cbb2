import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import http, { type Server } from 'node:http';
import { fileURLToPath } from 'node:url';
import { startTcpProxy } from '@escrowmq/local-servers';
import {
  createOutboxRelay,
  createProducer,
  type Producer,
  type ProducerOptions,
} from '@escrowmq/producer';
import { LIMITS } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { recordingLogger } from '../support/producer-database.js';
import { MARIADB, POSTGRES, type SuiteConnections } from '../support/producer-databases.js';
import { startOutboxDatabase } from '../support/producer-outbox.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

const COMMAND = fileURLToPath(
  new URL('../../producer-sdk/dist/outbox/outbox-command.js', import.meta.url),
);

/** Relays, the broker and RabbitMQ, as a user puts them together. */
describe.each([MARIADB, POSTGRES])('an outbox on $name, relayed to the broker', (kind) => {
  const { logger } = recordingLogger();
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let suite: Awaited<ReturnType<typeof startOutboxDatabase>>;
  let connections: SuiteConnections;
  let opened: { close(): Promise<void> }[];
  let topic: string;
  let producerGroup: string;
  let queue: BoundQueue;

  beforeAll(async () => {
    store = await freshStore('sqlite');
    broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    suite = await startOutboxDatabase(kind);
    connections = suite.connect({ connections: 8 });
  });
  afterAll(async () => {
    await broker.stop();
    await store.remove();
    await suite.close();
  });

  beforeEach(async () => {
    opened = [];
    await suite.observe('delete from account');
    await suite.observe('delete from escrow_outbox');
    topic = uniqueName('user');
    producerGroup = uniqueName('accounts');
    queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
    const registering = createProducer({ brokers: [broker.url], producerGroup });
    await registering.registerGroup({ checkUrls: ['http://127.0.0.1:9/check'] });
    await registering.close();
  });
  afterEach(async () => {
    for (const each of opened.reverse()) await each.close();
    await queue.close();
  });

  function producerOf(
    brokers: string[],
    topics?: string[],
    options: Pick<
      ProducerOptions,
      'transactionBytesMax' | 'attemptTimeoutMs' | 'requestTimeoutMs'
    > = {},
  ): Producer {
    const made = createProducer({
      ...options,
      brokers,
      producerGroup,
      outbox: topics === undefined ? true : { topics },
      closeTimeoutMs: 100,
      logger,
    });
    opened.push(made);
    return made;
  }

  function relayOf(address: string, producer?: Producer) {
    const made = createOutboxRelay({
      ...(producer === undefined ? { brokers: [address], producerGroup } : { producer }),
      database: suite.connect({ connections: 2 }).database,
      pollMs: 20,
      logger,
    });
    opened.push(made);
    return made;
  }

  const register = (by: Producer, account: number) =>
    by.transaction(connections.database, { topic, data: { account } }, (tx) =>
      suite.send(tx, `insert into account (id) values (${account})`),
    );

  /** Commits `count` transactions by a process that reaches no broker. */
  async function leave(count: number): Promise<void> {
    const alone = producerOf(['http://127.0.0.1:1']);
    let next = 0;
    const work = async () => {
      while (next < count) {
        next += 1;
        await register(alone, next);
      }
    };
    await Promise.all(Array.from({ length: 8 }, work));
    await suite.makeDue();
  }

  const ids = async () => (await suite.rows()).map(({ id }) => id).sort();
  const isSent = async () =>
    (await suite.observe("select 1 as one from escrow_outbox where state <> 'sent' limit 1"))
      .length === 0;
  const received = () => queue.messageIds().sort();

  test('two relays side by side send each of 2,000 rows exactly once', async () => {
    await leave(2_000);
    const wire = await startCountingProxy(broker.url);
    opened.push(wire);
    // An answer that takes longer than an attempt is asked for again, and counts twice on the wire.
    const patience = { attemptTimeoutMs: 30_000, requestTimeoutMs: 30_000 };
    const relays = [1, 2].map(() =>
      relayOf(wire.address, producerOf([wire.address], undefined, patience)),
    );
    for (const relay of relays) relay.start();
    await until('everything is sent', isSent, 30_000);
    const all = await ids();
    expect(all).toHaveLength(2_000);
    expect([...wire.sent].sort()).toEqual(all);
    await until('everything has arrived', () => queue.received.length >= 2_000, 30_000);
    expect(received()).toEqual(all.map((id) => `${id}-0`));
    const stats = await Promise.all(relays.map((relay) => relay.stats()));
    expect(stats.reduce((sum, { sent }) => sum + sent, 0)).toBe(2_000);
    // Both have worked, or the test says nothing.
    expect(stats.every(({ sent }) => sent > 0)).toBe(true);
  });

  test('a relay killed between sending and marking repeats nothing at RabbitMQ', async () => {
    await leave(50);
    const proxy = await startTcpProxy(broker.url);
    opened.push(proxy);
    const cut = proxy.cutNext('/v1/batch', 'after');
    const child = startCommand(proxy.url);
    await cut;
    child.kill('SIGKILL');
    await once(child, 'exit');
    expect((await suite.rows()).map(({ state }) => state)).toEqual(Array(50).fill('unsent'));
    await until('the broker has forwarded it', () => queue.received.length >= 50);

    const relay = relayOf(broker.url);
    // The lease of the dead one holds.
    expect(await relay.runOnce()).toEqual({ sent: 0, parked: 0, putOff: 0 });
    await suite.makeDue();
    expect(await relay.runOnce()).toEqual({ sent: 50, parked: 0, putOff: 0 });
    // One that is committed after all of these arrives after all of these.
    const last = await producerOf([broker.url]).send({ messages: [{ topic, data: 'last' }] });
    await until('it has arrived', () => queue.messageIds().includes(`${last.id}-0`));
    expect(received()).toEqual([...(await ids()), last.id].map((id) => `${id}-0`).sort());
  });

  test('the command relays until SIGTERM, and ends with 0', async () => {
    await leave(3);
    const child = startCommand(broker.url);
    await until('everything is sent', isSent);
    child.kill('SIGTERM');
    expect(await once(child, 'exit')).toEqual([0, null]);
    await until('everything has arrived', () => queue.received.length === 3);
  });

  test('a service whose broker is down for 200 transactions notices nothing', async () => {
    await broker.kill();
    const producer = producerOf([broker.url]);
    const relay = relayOf(broker.url);
    relay.start();
    const tookMs: number[] = [];
    for (let account = 1; account <= 200; account += 1) {
      const startedAt = performance.now();
      const { outcome } = await register(producer, account);
      tookMs.push(performance.now() - startedAt);
      expect(outcome).toBe('committed');
    }
    // Half of them, as a busy machine may hold up any one: what waits for the broker waits two seconds.
    expect(tookMs.sort((a, b) => a - b)[100]).toBeLessThan(2_000);
    expect(await suite.accounts()).toHaveLength(200);
    expect(queue.received).toEqual([]);
    await broker.start();
    await until('everything is sent', isSent, 30_000);
    await until('everything has arrived', () => queue.received.length >= 200);
    expect(received()).toEqual((await ids()).map((id) => `${id}-0`));
  });

  test('what the broker refuses is parked with its words', async () => {
    // It takes what this broker does not: ESCROW_TRANSACTION_BYTES_MAX is 1 MiB there.
    const transactionBytesMax = 2 * LIMITS.transactionBytesMax;
    const data = 'x'.repeat(LIMITS.transactionBytesMax);
    const producer = producerOf(['http://127.0.0.1:1'], undefined, { transactionBytesMax });
    await producer.transaction(connections.database, { topic, data }, (tx) =>
      suite.send(tx, 'insert into account (id) values (1)'),
    );
    await register(producer, 2);
    await suite.makeDue();
    const relay = relayOf(broker.url);
    expect(await relay.runOnce()).toEqual({ sent: 1, parked: 1, putOff: 0 });
    const [parked] = await suite.rows();
    expect(parked?.state).toBe('parked');
    expect(parked?.cause).toMatch(/^BODY_TOO_LARGE: .*1048576/s);
    expect(await relay.stats()).toMatchObject({ pending: 0, parked: 1 });
  });

  test('a topic switched back and forth while both kinds are under way loses nothing', async () => {
    const stored = producerOf([broker.url], [topic]);
    const prepared = producerOf([broker.url], ['another']);
    const relay = relayOf(broker.url);
    relay.start();
    const outcomes: string[] = [];
    let next = 0;
    const work = async () => {
      while (next < 120) {
        next += 1;
        const account = next;
        const by = Math.floor(account / 10) % 2 === 0 ? stored : prepared;
        if (account === 60) await broker.stop();
        const restart = account === 70 ? broker.start() : undefined;
        const settled = await register(by, account).catch(() => undefined);
        if (settled?.outcome === 'committed') outcomes.push(settled.id);
        await restart;
      }
    };
    await Promise.all(Array.from({ length: 4 }, work));
    await until('everything is sent', isSent, 30_000);
    // What the broker had published and not marked when it stopped comes twice.
    const arrived = () => [...new Set(received())];
    await until('everything has arrived', () => arrived().length >= outcomes.length, 45_000);
    expect(arrived()).toEqual(outcomes.map((id) => `${id}-0`).sort());
    expect(await suite.accounts()).toHaveLength(outcomes.length);
    // Both kinds, or the test says nothing.
    const inOutbox = (await ids()).length;
    expect(inOutbox).toBeGreaterThan(20);
    expect(outcomes.length - inOutbox).toBeGreaterThan(20);
  });

  function startCommand(address: string): ChildProcess {
    const flags = ['--broker', address, '--producer-group', producerGroup];
    const child = spawn(process.execPath, [COMMAND, ...flags], {
      env: { PATH: process.env.PATH, ESCROW_OUTBOX_DATABASE: suite.url },
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    opened.push({
      async close() {
        child.kill('SIGKILL');
      },
    });
    return child;
  }
});

/** Passes everything on to the broker, and keeps the ids of what is sent. */
async function startCountingProxy(
  target: string,
): Promise<{ address: string; sent: string[]; close(): Promise<void> }> {
  const sent: string[] = [];
  const server: Server = http.createServer((request, response) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      const body = Buffer.concat(chunks).toString();
      const { operations } = JSON.parse(body) as { operations: { op: string; id: string }[] };
      for (const { op, id } of operations) if (op === 'send') sent.push(id);
      const answer = await fetch(target + request.url, {
        method: String(request.method),
        headers: { 'content-type': 'application/json' },
        body,
      });
      response.writeHead(answer.status, { 'content-type': 'application/json' });
      response.end(await answer.text());
    })();
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  const { port } = server.address() as { port: number };
  return {
    address: `http://127.0.0.1:${port}`,
    sent,
    async close() {
      server.closeAllConnections();
      server.close();
    },
  };
}

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type ConsumerEvent, createConsumer, defineTopic } from '@escrowmq/consumer';
import type { LocalDatabase } from '@escrowmq/database';
import { fromSqlite } from '@escrowmq/database/sqlite';
import {
  createProducer,
  ensureBarrierTable,
  ensureOutboxTable,
  type Producer,
} from '@escrowmq/producer';
import { deadLetterQueueName, HEADERS } from '@escrowmq/protocol';
import { afterAll, beforeAll, expect, test } from '@jest/globals';
import { connect } from 'amqplib';
import { z } from 'zod';
import { openSqlite, type SqliteConnection } from '../../broker/src/store/sqlite/driver.js';
import { partitionQueueOf } from '../../consumer-sdk/src/ordered/topology.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { deleteGroupQueues } from '../support/group-queues.js';
import { publish } from '../support/publish.js';
import { takeFrom } from '../support/rabbit.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/*
 * Both SDKs, a broker and RabbitMQ, and one topic of both: whichever way data enter the producer, and
 * whichever kind of subscription gets them, they fit their schema.
 */

const user = defineTopic(uniqueName('user'), {
  registered: z.object({ userId: z.int(), at: z.coerce.date() }),
  moved: { 1: z.object({ to: z.string() }), 2: z.object({ city: z.string() }) },
});
const at = new Date('2030-01-02T03:04:05.678Z');
const registered = (userId: number) => user.message('registered', { userId, at });
/** What the compiler would not let through. */
const wrong = user.message('registered', { userId: 'seven', at } as never);
const SAID = `topic ${user.name}, key registered: userId: Invalid input: expected number`;

let folder: string;
let connections: SqliteConnection[];
let database: LocalDatabase<SqliteConnection>;
let store: Awaited<ReturnType<typeof freshStore>>;
let broker: BrokerProcess;
let producer: Producer;
let outboxProducer: Producer;
/** What a test that fails would leave open. */
const opened: { close(): Promise<unknown> }[] = [];

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'escrow-typed-'));
  connections = [];
  const open = () => {
    const connection = openSqlite(join(folder, 'app.db'));
    connections.push(connection);
    return connection;
  };
  open().exec('create table account (id integer primary key)');
  database = fromSqlite(open) as typeof database;
  await ensureBarrierTable(database);
  await ensureOutboxTable(database);
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  const options = { brokers: [broker.url], producerGroup: uniqueName('accounts') };
  producer = createProducer(options);
  outboxProducer = createProducer({ ...options, outbox: { topics: [user.name] } });
  await producer.registerGroup({ checkUrls: ['http://127.0.0.1:1/check'] });
});

afterAll(async () => {
  await Promise.all([producer, outboxProducer, ...opened].map((one) => one.close()));
  for (const connection of connections) connection.close();
  await broker.stop();
  await store.remove();
  await rm(folder, { recursive: true });
});

const accounts = () => connections[0]!.prepare('select id from account order by id').all();
const insert = (id: number) => async (tx: SqliteConnection) => {
  tx.prepare('insert into account (id) values (?)').run(id);
};

test('N10: whichever way data enter and arrive they fit their schema, and what does not is refused on both sides', async () => {
  const group = uniqueName('index');
  const events: ConsumerEvent[] = [];
  const logger = (event: ConsumerEvent) => events.push(event);
  const consumer = createConsumer({ rabbitmq: rabbitmqUrl(), logger });
  opened.push(consumer);
  const seen: Record<string, unknown[]> = { each: [], ordered: [], batch: [], ephemeral: [] };
  const see = (how: string, message: { routingKey: string; version: number; data: unknown }) => {
    const { routingKey, version, data } = message;
    seen[how]!.push({ routingKey, version, data });
  };
  const retryDelaysMs = [50];
  const options = { topic: user, retryDelaysMs };
  await consumer.subscribe({ ...options, group: `${group}-each` }, (message) => {
    if (message.routingKey === 'registered') expect(message.data.at).toBeInstanceOf(Date);
    see('each', message);
  });
  const ordered = { partitions: 1 };
  await consumer.subscribe({ ...options, group: `${group}-ordered`, ordered }, (message) =>
    see('ordered', message),
  );
  await consumer.subscribeBatch({ ...options, group: `${group}-batch` }, (messages) => {
    for (const message of messages) see('batch', message);
  });
  await consumer.subscribeEphemeral({ topic: user, onGap: () => undefined }, (message) =>
    see('ephemeral', message),
  );

  // Every way in.
  await producer.send({ messages: [{ ...registered(1), orderingKey: 'u' }] });
  const { id } = await producer.prepare({ messages: [user.open('registered')] });
  const data = user.data('registered', { userId: 2, at });
  await producer.commit(id, { messageData: [{ number: 0, data }] });
  await producer.transaction(database, registered(3), insert(3));
  await producer.transaction(database, user.open('registered'), async (tx, { supplyData }) => {
    await insert(4)(tx);
    supplyData({ userId: 4, at });
  });
  await outboxProducer.transaction(database, registered(5), insert(5));
  await outboxProducer.transaction(
    database,
    user.open('moved', { version: 2 }),
    async (tx, info) => {
      await insert(6)(tx);
      info.supplyData(user.data('moved', { city: 'Bremen' }, { version: 2 }));
    },
  );
  await producer.send({ messages: [user.message('moved', { to: 'Bremen' }, { version: 1 })] });

  // And no way in for what breaks its schema.
  const own = connections[0]!;
  await expect(producer.send({ messages: [wrong] })).rejects.toThrow(SAID);
  await expect(producer.prepare({ messages: [wrong] })).rejects.toThrow(SAID);
  await expect(producer.transaction(database, wrong, insert(7))).rejects.toThrow(SAID);
  await expect(outboxProducer.transaction(database, wrong, insert(7))).rejects.toThrow(SAID);
  const open = producer.transaction(database, user.open('registered'), async (tx, info) => {
    await insert(7)(tx);
    info.supplyData({ userId: 'seven', at });
  });
  await expect(open).rejects.toThrow(SAID);
  own.exec('begin');
  await expect(producer.enlist(fromSqlite(own), wrong)).rejects.toThrow(SAID);
  const enlisted = await producer.enlist(fromSqlite(own), user.open('registered'));
  expect(() => enlisted.supplyData({ userId: 'seven', at })).toThrow(SAID);
  own.exec('rollback');
  await enlisted.settle(database);
  expect(accounts()).toEqual([3, 4, 5, 6].map((id) => ({ id })));

  // What came without the SDK, and does not fit.
  const connection = await connect(rabbitmqUrl());
  opened.push({ close: () => connection.close().catch(() => undefined) });
  const channel = await connection.createConfirmChannel();
  const raw = { topic: user.name, routingKey: 'registered', data: { userId: 'seven', at } };
  const inOrder = { [HEADERS.orderingKey]: 'u', [HEADERS.sequence]: 2 };
  await publish(channel, { ...raw, headers: inOrder });
  const version = { 'schema-version': 3 };
  await publish(channel, { ...raw, routingKey: 'moved', headers: version });
  for (const how of ['each', 'ordered', 'batch']) {
    const queue = deadLetterQueueName(user.name, `${group}-${how}`);
    const dead = [await takeFrom(channel, queue), await takeFrom(channel, queue)].map(
      ({ properties }) => properties.headers ?? {},
    );
    for (const headers of dead) {
      expect(headers).toMatchObject({ [HEADERS.deadReason]: 'mismatch', [HEADERS.attempts]: 1 });
    }
    const causes = dead.map((headers) => String(headers[HEADERS.cause])).sort();
    expect(causes[0]).toContain(`the data of the message do not fit ${SAID}`);
    expect(causes[1]).toContain(
      `topic ${user.name}, key moved: the message was made with version 3`,
    );
  }
  await until('the ephemeral one has told of both', () => {
    return events.filter(({ event }) => event === 'messageDropped').length === 2;
  });

  const fit = [
    ...[1, 2, 3, 4, 5].map((userId) => ({
      routingKey: 'registered',
      version: 1,
      data: { userId, at },
    })),
    { routingKey: 'moved', version: 1, data: { to: 'Bremen' } },
    { routingKey: 'moved', version: 2, data: { city: 'Bremen' } },
  ];
  for (const [how, messages] of Object.entries(seen)) {
    await until(`${how} has all`, () => messages.length >= fit.length);
    expect(messages).toHaveLength(fit.length);
    expect(messages).toEqual(expect.arrayContaining(fit));
  }

  await consumer.close();
  const topology = { topic: user.name, group: `${group}-ordered`, partitions: 1 };
  const { name } = partitionQueueOf({ ...topology, routingKeys: [], retryDelaysMs }, 0);
  await channel.deleteQueue(name);
  await connection.close();
  const groups = ['each', 'ordered', 'batch'].map((how) => `${group}-${how}`);
  await deleteGroupQueues(
    rabbitmqUrl(),
    user.name,
    groups.map((one) => ({ group: one, retryDelaysMs })),
  );
});

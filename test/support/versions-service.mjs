import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { createConsumer, PermanentError } from '@escrowmq/consumer';
import {
  createCheckHandler,
  createCheckPoller,
  createCompensationHandler,
  createOutboxRelay,
  createProducer,
  ensureBarrierTable,
  ensureCompensationTable,
  ensureOutboxTable,
  nodeCheckListener,
  nodeCompensationListener,
} from '@escrowmq/producer';
import { createPool } from 'mysql2/promise';

/*
 * A service as it was written for 0.1, with everything that its SDKs had. It is run with the packages
 * of one version against the broker of another, and prints what it saw as one line of JSON.
 */

const { BROKER, RABBITMQ, DATABASE, NAME } = process.env;
const brokers = [BROKER];
const group = `${NAME}-orders`;
const topic = `${NAME}-order`;
const seen = {};
const pool = createPool(DATABASE);
const logger = { warn: () => undefined, error: () => undefined };

async function until(what, condition) {
  const startedAt = performance.now();
  while (!(await condition())) {
    if (performance.now() - startedAt > 20_000) throw new Error(`in vain until ${what}`);
    await pause(20);
  }
}
const codeOf = (promise) =>
  promise.then(
    () => 'no refusal',
    ({ code, status, retryable }) => `${code} ${status} ${retryable}`,
  );

await ensureBarrierTable(pool);
await ensureCompensationTable(pool);
await ensureOutboxTable(pool);
await pool.query('create table work (id int primary key)');

const server = http.createServer().listen(0, '127.0.0.1');
await new Promise((listening) => server.once('listening', listening));
const url = `http://127.0.0.1:${server.address().port}`;
const checkPolicy = { firstDelayMs: 0, delayMsMax: 200 };

const producer = createProducer({ brokers, producerGroup: group, logger });
const called = createProducer({ brokers, producerGroup: `${group}-called`, logger });
const stranger = createProducer({ brokers, producerGroup: `${group}-unknown`, logger });
const boxed = createProducer({ brokers, producerGroup: group, outbox: true, logger });
const consumer = createConsumer({ rabbitmq: RABBITMQ, logger: () => undefined });

// Registration, and the endpoints that the broker calls.
async function register(by, name, settings) {
  try {
    const answer = await by.registerGroup(settings);
    seen.registered = typeof answer.signingSecret;
    return answer;
  } catch (error) {
    if (error.code !== 'UNKNOWN_FIELD') throw error;
    seen.registered = error.message;
    const answer = await fetch(`${BROKER}/v1/producer-groups/${name}`, {
      method: 'PUT',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify(settings),
    });
    return answer.json();
  }
}
await register(producer, group, { checkUrls: [], checkPolicy });
const { signingSecret } = await register(called, `${group}-called`, {
  checkUrls: [`${url}/check`],
  compensationUrls: [`${url}/compensation`],
  checkPolicy,
});
const compensated = [];
const checked = nodeCheckListener(createCheckHandler({ signingSecret, database: pool, logger }));
const compensates = nodeCompensationListener(
  createCompensationHandler({
    signingSecret,
    database: pool,
    logger,
    compensate: async (_tx, { message, consumerGroup }) => {
      compensated.push(`${message} ${consumerGroup}`);
    },
  }),
);
server.on('request', (request, response) =>
  (request.url === '/check' ? checked : compensates)(request, response),
);
const poller = createCheckPoller({ brokers, producerGroup: group, database: pool, logger });
poller.start();

// A consumer with retries, dead letters and receipts.
const consumed = [];
let failures = 0;
await consumer.subscribe({ topic, group: 'stock', retryDelaysMs: [50] }, async (message) => {
  if (message.data.refuse) throw new PermanentError('out of stock');
  if (message.data.retry && failures++ === 0) throw new Error('try again');
  consumed.push(message.data.id);
});
const message = (id, more = {}) => ({ topic, data: { id, ...more } });

// Prepare, commit, rollback, send, and what contradicts them.
const first = await producer.prepare({ messages: [message(1)], checkAfterMs: 60_000 });
seen.commit = (await producer.commit(first.id)).state === 'prepared' ? 'prepared' : 'committed';
const dropped = await producer.prepare({ messages: [message(2)], checkAfterMs: 60_000 });
seen.rollback = (await producer.rollback(dropped.id)).state;
seen.stateConflict = await codeOf(producer.commit(dropped.id));
seen.contentConflict = await codeOf(producer.send({ id: first.id, messages: [message(3)] }));
seen.unknownGroup = await codeOf(stranger.send({ messages: [message(4)] }));
seen.unknownId = await codeOf(producer.commit('0198f3c2-7a10-7cc3-98c4-dc0c0c07398f'));

// A batch of many, with refused ones among them.
const many = await Promise.all(
  Array.from({ length: 60 }, (_, number) => {
    if (number % 20 === 7) return codeOf(producer.commit(dropped.id));
    if (number % 20 === 13) return codeOf(stranger.send({ messages: [message(number)] }));
    return producer.send({ messages: [message(100 + number)] }).then(({ state }) => state);
  }),
);
seen.batch = [...new Set(many)].sort();
seen.batchSent = many.filter((state) => ['committed', 'forwarded'].includes(state)).length;

// A local transaction, waited for by its business key, through a retry.
const settled = await producer.transaction(
  pool,
  message(5, { retry: true }),
  (tx) => tx.execute('insert into work values (5)'),
  { businessKeys: [`${NAME}:5`], expects: ['stock'] },
);
seen.settled = (await producer.waitForBusinessKey(`${NAME}:5`, { waitMs: 15_000 })).settled;
const view = await producer.query(settled.id);
seen.view = [view.state, view.settled, view.receipts.map(({ kind }) => kind)];

// A delayed message that is cancelled.
const late = await producer.send({ messages: [{ ...message(6), delayMs: 3_600_000 }] });
seen.cancelled = (await producer.cancel(late.id, { reason: 'not wanted' })).cancelled;
seen.history = (await producer.query(late.id)).history.map(({ event }) => event);

// Checks, by poll and by callback: nobody committed, so the barrier decides.
for (const [name, by] of Object.entries({ polled: producer, called })) {
  const { id } = await by.prepare({ messages: [message(7)], checkAfterMs: 0 });
  await until(`${name} is checked`, async () => (await by.query(id)).state !== 'prepared');
  const { state, decision } = await by.query(id);
  seen[name] = [state, decision?.by.split(' ')[0]];
}

// A compensation.
const { id: undone } = await called.transaction(
  pool,
  { ...message(8, { refuse: true }), compensate: true },
  (tx) => tx.execute('insert into work values (8)'),
  { expects: ['stock'] },
);
const owedTo = async () => (await called.query(undone)).compensations.map(({ state }) => state);
await until('it is compensated', async () => (await owedTo())[0] === 'done');
seen.compensated = compensated;
seen.standing = (await called.query(undone)).groups.map(({ state }) => state);

// The outbox and its relay.
const relay = createOutboxRelay({ database: pool, producer: boxed, logger });
await boxed.transaction(pool, message(9), (tx) => tx.execute('insert into work values (9)'));
await until('the outbox is empty', async () => {
  await relay.runOnce();
  return (await relay.stats()).pending === 0;
});

// A search by hand, as somebody without an SDK does it.
const answer = await fetch(`${BROKER}/v1/transactions?producerGroup=${group}-called&limit=10`);
seen.search = (await answer.json()).transactions.map(({ state }) => state).sort();

await until('all is consumed', () => consumed.length >= 54 + 3);
seen.consumed = [1, 5, 9].every((id) => consumed.includes(id)) && !consumed.includes(2);

await relay.close();
await poller.close();
await consumer.close();
for (const each of [producer, called, stranger, boxed]) await each.close();
server.closeAllConnections();
server.close();
await pool.end();
process.stdout.write(`${JSON.stringify(seen)}\n`);

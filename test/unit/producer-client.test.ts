import { createProducer, type Producer, type ProducerOptions } from '@escrowmq/producer';
import { EscrowError } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import {
  decided,
  type FakeBroker,
  problemAnswer,
  type Scripted,
  startFakeBroker,
} from '../support/fake-broker.js';
import { until } from '../support/until.js';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };

async function broker(...script: Scripted[]): Promise<FakeBroker> {
  const started = await startFakeBroker(script);
  open.push(started);
  return started;
}

function producerOf(
  brokers: { address: string }[],
  options: Partial<ProducerOptions> = {},
): Producer {
  const producer = createProducer({
    brokers: brokers.map(({ address }) => address),
    producerGroup: 'accounts',
    ...options,
  });
  open.unshift(producer);
  return producer;
}

test('a prepare carries the producer group, an id of version 7 and the API key', async () => {
  const fake = await broker();
  const answer = await producerOf([fake], { apiKey: 'key-1' }).prepare({ messages: [message] });
  expect(answer.state).toBe('prepared');
  const [operation] = JSON.parse(fake.requests[0]!.body).operations;
  expect(operation).toMatchObject({ op: 'prepare', producerGroup: 'accounts', id: answer.id });
  expect(answer.id).toMatch(/^[0-9a-f-]{14}7/);
  expect(fake.requests[0]!.headers.authorization).toBe('Bearer key-1');
});

test('concurrent calls share a batch', async () => {
  const fake = await broker();
  const producer = producerOf([fake]);
  const prepares = Array.from({ length: 100 }, () => producer.prepare({ messages: [message] }));
  const ids = new Set((await Promise.all(prepares)).map(({ id }) => id));
  expect(ids.size).toBe(100);
  expect(fake.requests.length).toBeLessThanOrEqual(2);
});

test('operations on one id keep their order and never share a batch', async () => {
  const fake = await broker('lose reply');
  const producer = producerOf([fake]);
  await Promise.all([producer.prepare({ id: ID, messages: [message] }), producer.commit(ID)]);
  expect(fake.operations().map(({ op }) => op)).toEqual(['prepare', 'prepare', 'commit']);
});

test('a prepare whose reply was lost is repeated with the same id (F03)', async () => {
  const fake = await broker('lose reply');
  const { id } = await producerOf([fake]).prepare({ messages: [message] });
  expect(fake.operations().map((operation) => operation.id)).toEqual([id, id]);
  expect(fake.transactions.size).toBe(1);
});

test('a dead address is passed over and the next one answers (F02)', async () => {
  const dead = await broker();
  await dead.close();
  const alive = await broker();
  const producer = producerOf([dead, alive]);
  expect((await producer.prepare({ messages: [message] })).state).toBe('prepared');
});

test('an address that does not answer is left after attemptTimeoutMs', async () => {
  const silent = await broker('hang');
  const alive = await broker();
  const producer = producerOf([silent, alive], { attemptTimeoutMs: 100 });
  await producer.prepare({ messages: [message] });
  expect(alive.operations()).toHaveLength(1);
});

test('503 with Retry-After is repeated, not before that time', async () => {
  const busy = problemAnswer(new EscrowError('BROKER_BUSY', 'full'), { 'retry-after': '1' });
  const fake = await broker(busy);
  const startedAt = performance.now();
  await producerOf([fake]).prepare({ messages: [message] });
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(990);
  expect(fake.requests).toHaveLength(2);
});

test('a Retry-After beyond the time limit ends the call', async () => {
  const busy = problemAnswer(new EscrowError('BROKER_BUSY', 'full'), { 'retry-after': '60' });
  const fake = await broker(busy);
  const startedAt = performance.now();
  const producer = producerOf([fake], { prepareTimeoutMs: 20_000 });
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject({
    code: 'BROKER_UNREACHABLE',
    cause: { code: 'BROKER_BUSY' },
  });
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});

test('an operation that the broker puts off is repeated without the others of its batch', async () => {
  const problem = problemAnswer(new EscrowError('STORE_UNAVAILABLE', 'no store'));
  const results = [
    { status: 503, problem: JSON.parse(problem.body) },
    { status: 200, answer: decided(ID, 'commit') },
  ];
  const fake = await broker({ status: 200, body: JSON.stringify({ results }) });
  const producer = producerOf([fake]);
  await Promise.all([producer.prepare({ messages: [message] }), producer.commit(ID)]);
  expect(fake.operations().map(({ op }) => op)).toEqual(['prepare', 'commit', 'prepare']);
});

test('a contradicted verdict carries the decision on record and is not repeated (F26)', async () => {
  const fake = await broker();
  fake.transactions.set(ID, decided(ID, 'rollback'));
  await expect(producerOf([fake]).commit(ID)).rejects.toMatchObject({
    code: 'STATE_CONFLICT',
    details: { decision: { decision: 'rollback', by: 'producer' } },
  });
  expect(fake.requests).toHaveLength(1);
});

test('an answer that no broker gives is repeated, whatever its status', async () => {
  const fake = await broker(
    { status: 404, body: '<h1>nginx</h1>' },
    { status: 200, body: '{}' },
    { status: 200, body: '{"results":[]}' },
    { status: 302, headers: { location: 'http://127.0.0.1:1/' }, body: '' },
  );
  await producerOf([fake]).prepare({ messages: [message] });
  expect(fake.requests).toHaveLength(5);
});

test('when no address answers in time the error names them and carries the last failure', async () => {
  const dead = await broker();
  await dead.close();
  const producer = producerOf([dead], { prepareTimeoutMs: 300 });
  const startedAt = performance.now();
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject({
    code: 'BROKER_UNREACHABLE',
    message: expect.stringContaining(dead.address),
    cause: { code: 'ECONNREFUSED' },
  });
  // Not the 2 s that are the default.
  expect(performance.now() - startedAt).toBeLessThan(1_900);
});

test('a call that gave up in the queue is never sent', async () => {
  let release = () => {};
  const gate = new Promise<void>((resolve) => {
    release = resolve;
  });
  const fake = await broker({ after: gate });
  const producer = producerOf([fake], { prepareTimeoutMs: 200, attemptTimeoutMs: 5_000 });
  const first = producer.commit(ID).catch((error: unknown) => error);
  while (fake.requests.length === 0) await new Promise(setImmediate);
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject({
    code: 'BROKER_UNREACHABLE',
  });
  release();
  expect(await first).toMatchObject({ code: 'TRANSACTION_NOT_FOUND' });
  await producer.commit(ID).catch(() => undefined);
  expect(fake.operations().map(({ op }) => op)).toEqual(['commit', 'commit']);
});

test('wrong input is refused before anything is sent', async () => {
  const fake = await broker();
  const producer = producerOf([fake]);
  const circular: Record<string, unknown> = {};
  circular.self = 1n;
  const large = { topic: 'user', data: 'x'.repeat(1024 * 1024) };
  await expect(producer.commit('42')).rejects.toMatchObject({ code: 'INVALID_ID' });
  await expect(producer.prepare({ messages: [] })).rejects.toMatchObject({
    code: 'INVALID_REQUEST',
  });
  await expect(
    producer.prepare({ messages: [{ topic: 'user', data: circular }] }),
  ).rejects.toMatchObject({ code: 'INVALID_REQUEST' });
  await expect(producer.send({ messages: [large] })).rejects.toMatchObject({
    code: 'BODY_TOO_LARGE',
  });
  expect(fake.requests).toHaveLength(0);
});

test('options are refused by name, and a password in an address is not repeated', () => {
  const base = { brokers: ['http://127.0.0.1:1'], producerGroup: 'accounts' };
  expect(() => createProducer({ ...base, brokers: [] })).toThrow(/brokers/);
  expect(() => createProducer({ ...base, prepareTimeoutMs: 0 })).toThrow(/prepareTimeoutMs is 0/);
  expect(() => createProducer({ ...base, producerGroup: 'a b' })).toThrow(/producerGroup/);
  const secret = { ...base, brokers: ['http://user:hunter2@host'] };
  expect(() => createProducer(secret)).toThrow(
    expect.objectContaining({ message: expect.not.stringContaining('hunter2') }),
  );
});

test('waiting for a business key polls until it has settled', async () => {
  const unsettled = {
    businessKey: 'phone:1',
    settled: false,
    transactions: [
      { id: ID, producerGroup: 'accounts', state: 'committed', waitingFor: [], failed: [] },
    ],
  };
  const settled = { ...unsettled, settled: true, transactions: [] };
  const fake = await broker(
    { status: 200, body: JSON.stringify(unsettled) },
    { status: 200, body: JSON.stringify(settled) },
  );
  const answer = await producerOf([fake]).waitForBusinessKey('phone:1', { waitMs: 60_000 });
  expect(answer.settled).toBe(true);
  expect(fake.requests.map(({ path }) => path)).toEqual([
    '/v1/business-keys/phone%3A1?waitMs=30000',
    '/v1/business-keys/phone%3A1?waitMs=30000',
  ]);
});

test('a parked transaction ends the wait: only a person can settle it', async () => {
  const parked = {
    businessKey: 'phone:1',
    settled: false,
    transactions: [
      { id: ID, producerGroup: 'accounts', state: 'parked', waitingFor: [], failed: [] },
    ],
  };
  const fake = await broker({ status: 200, body: JSON.stringify(parked) });
  const answer = await producerOf([fake]).waitForBusinessKey('phone:1');
  expect(answer.settled).toBe(false);
  expect(fake.requests).toHaveLength(1);
});

test('callers who wait for business keys do not hold up a prepare', async () => {
  const waits = 50;
  const fake = await broker(...Array.from({ length: waits }, () => 'hang' as const));
  const producer = producerOf([fake], { requestTimeoutMs: 500, closeTimeoutMs: 100 });
  const waiting = Array.from({ length: waits }, (_, n) =>
    producer.waitForBusinessKey(`phone:${n}`, { waitMs: 100 }).catch(() => undefined),
  );
  await until('all wait at the broker', () => fake.requests.length >= waits);
  await producer.prepare({ messages: [{ topic: 'user', data: 1 }] });
  expect(fake.operations()).toHaveLength(1);
  await producer.close();
  await Promise.all(waiting);
});

test('U12: a registration whose answer was lost is repeated with the same secret, a rotation too', async () => {
  const registered = {
    status: 200,
    body: JSON.stringify({ producerGroup: 'accounts', checkUrls: [], checkPolicy: {} }),
  };
  const fake = await broker('lose reply', registered, 'lose reply', registered, registered);
  const producer = producerOf([fake]);
  const own = `whsec_${Buffer.alloc(32, 1).toString('base64')}`;
  await producer.registerGroup({ checkUrls: [], rotateSecret: true });
  await producer.registerGroup({ checkUrls: [], signingSecret: own });
  const answer = await producer.registerGroup({ checkUrls: [], signingSecret: [own, own] });
  expect(answer.signingSecret).toBe(own);
  const sent = fake.requests.map(({ body }) => JSON.parse(body));
  expect(fake.requests[0]).toMatchObject({ method: 'PUT', path: '/v1/producer-groups/accounts' });
  expect(sent[0]).toMatchObject({
    newSecret: expect.stringMatching(/^whsec_/),
    rotateSecret: true,
  });
  expect(sent[1]).toEqual(sent[0]);
  expect(sent.slice(2).map(({ signingSecrets }) => signingSecrets)).toEqual([
    [own],
    [own],
    [own, own],
  ]);
  const refused = producer.registerGroup({ checkUrls: [], signingSecret: 'hunter2' });
  await expect(refused).rejects.toThrow(/signingSecrets.* must be whsec_/);
  await expect(refused).rejects.not.toThrow(/hunter2/);
});

test('close waits for what is under way and refuses what comes later', async () => {
  const fake = await broker();
  const producer = producerOf([fake]);
  const prepared = producer.prepare({ messages: [message] });
  await producer.close();
  expect((await prepared).state).toBe('prepared');
  await expect(producer.commit(ID)).rejects.toThrow(/closed/);
});

import { createProducer, type Producer, type ProducerOptions } from '@escrowmq/producer';
import { EscrowError, toProblem } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { backOffMs, pauseBeforeRepeatMs } from '../../producer-sdk/src/back-off.js';
import {
  decided,
  type FakeBroker,
  problemAnswer,
  type Scripted,
  startFakeBroker,
} from '../support/fake-broker.js';
import { deferred } from '../support/ready.js';
import { until } from '../support/until.js';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

const message = { topic: 'user', data: { userId: 7 } };
const large = (bytes: number) => ({ messages: [{ topic: 'user', data: 'x'.repeat(bytes) }] });
const idOf = (number: number) => `0198f3c2-7a10-7cc3-98c4-${String(number).padStart(12, '0')}`;

async function start(
  script: Scripted[],
  options: Partial<ProducerOptions>,
): Promise<{ broker: FakeBroker; producer: Producer }> {
  const broker = await startFakeBroker(script);
  for (let number = 0; number < 100; number += 1) {
    broker.transactions.set(idOf(number), { id: idOf(number), state: 'prepared' });
  }
  const producer = createProducer({
    brokers: [broker.address],
    producerGroup: 'accounts',
    ...options,
  });
  open.push(producer, broker);
  return { broker, producer };
}

/** What a batch of one gets from a broker that puts it off. */
function putOff(details: Record<string, unknown> = {}): Scripted {
  const problem = toProblem(new EscrowError('BROKER_BUSY', 'too many prepares wait', { details }));
  return { status: 200, body: JSON.stringify({ results: [{ status: 503, problem }] }) };
}

const refusedBy = (limit: string) => ({
  code: 'BROKER_BUSY',
  retryable: true,
  message: expect.stringContaining(limit),
});

test('over operationsWaitingMax prepares and sends are refused, verdicts only at twice as many', async () => {
  const gate = deferred();
  const options = { operationsWaitingMax: 2, prepareTimeoutMs: 5_000 };
  const { broker, producer } = await start([{ after: gate.promise }], options);
  const accepted: Promise<unknown>[] = [
    producer.prepare({ messages: [message] }),
    producer.send({ messages: [message] }),
  ];
  const refused = refusedBy('(operationsWaitingMax, 2)');
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject(refused);
  await expect(producer.send({ messages: [message] })).rejects.toMatchObject(refused);
  accepted.push(producer.commit(idOf(1)), producer.rollback(idOf(2)));
  await expect(producer.commit(idOf(3))).rejects.toMatchObject(refused);
  await expect(producer.rollback(idOf(4))).rejects.toMatchObject(refused);

  gate.resolve();
  await Promise.all(accepted);
  expect(broker.operations()).toHaveLength(4);
  await producer.prepare({ messages: [message] });
});

test('over operationsWaitingBytesMax prepares are refused, verdicts only at twice as many bytes', async () => {
  const gate = deferred();
  const options = { operationsWaitingBytesMax: 1_000, prepareTimeoutMs: 5_000 };
  const { broker, producer } = await start([{ after: gate.promise }], options);
  const accepted: Promise<unknown>[] = [producer.prepare(large(700))];
  const refused = refusedBy('(operationsWaitingBytesMax, 1000)');
  await expect(producer.prepare(large(700))).rejects.toMatchObject(refused);
  await expect(producer.send(large(700))).rejects.toMatchObject(refused);

  const verdicts = Array.from({ length: 100 }, (_, number) => producer.commit(idOf(number)));
  const settling = Promise.allSettled(verdicts);
  gate.resolve();
  const settled = await settling;
  await Promise.all(accepted);
  const count = settled.filter(({ status }) => status === 'fulfilled').length;
  expect(settled[count]).toMatchObject({ status: 'rejected', reason: refused });
  const sent = broker.operations().map((operation) => JSON.stringify(operation).length);
  const bytes = sent.reduce((sum, each) => sum + each, 0);
  expect(bytes).toBeGreaterThan(2_000 - JSON.stringify({ op: 'commit', id: idOf(0) }).length);
  expect(bytes).toBeLessThanOrEqual(2_000);
  await Promise.all([producer.commit(idOf(0)), producer.prepare(large(700))]);
});

test('one operation larger than operationsWaitingBytesMax is sent when it waits alone', async () => {
  const { producer } = await start([], { operationsWaitingBytesMax: 100 });
  const alone = producer.prepare(large(5_000));
  await expect(producer.prepare(large(1))).rejects.toMatchObject({ code: 'BROKER_BUSY' });
  expect((await alone).state).toBe('prepared');
});

test('bytes are those on the wire', async () => {
  const { producer } = await start([], { operationsWaitingBytesMax: 1_000 });
  const wide = { messages: [{ topic: 'user', data: '漢'.repeat(250) }] };
  const first = producer.prepare(wide);
  await expect(producer.prepare(wide)).rejects.toMatchObject({ code: 'BROKER_BUSY' });
  await first;
});

test('what the broker put off still counts until it has ended', async () => {
  const { broker, producer } = await start([putOff({ retryAfterSeconds: 0.5 })], {
    operationsWaitingMax: 1,
  });
  const first = producer.prepare({ messages: [message] });
  await until('the prepare is at the broker', () => broker.requests.length === 1);
  // Answered after the first batch: by then the prepare waits for its repeat and for nothing else.
  await producer.commit(idOf(1));
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject({
    code: 'BROKER_BUSY',
  });
  await first;
  await producer.prepare({ messages: [message] });
  expect(broker.operations().map(({ op }) => op)).toEqual([
    'prepare',
    'commit',
    'prepare',
    'prepare',
  ]);
});

test('calls that failed or expired make room again', async () => {
  const options = { operationsWaitingMax: 1, prepareTimeoutMs: 200, verdictTimeoutMs: 200 };
  const { broker, producer } = await start(['hang'], { ...options, attemptTimeoutMs: 100 });
  broker.script.push(...Array<Scripted>(20).fill('lose request'));
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject({
    code: 'BROKER_UNREACHABLE',
  });
  broker.script.length = 0;
  await expect(producer.commit('0198f3c2-7a10-7cc3-98c4-dc0c0c07398f')).rejects.toMatchObject({
    code: 'TRANSACTION_NOT_FOUND',
  });
  await until('the prepare that expired has left', async () => {
    const answer = producer.prepare({ messages: [message] });
    return answer.then(
      () => true,
      () => false,
    );
  });
});

test('an operation put off is repeated after the time its problem names, and holds up no other', async () => {
  const busy = putOff({ retryAfterSeconds: 3 });
  const { broker, producer } = await start([busy], { prepareTimeoutMs: 20_000 });
  const startedAt = performance.now();
  const prepared = producer.prepare({ messages: [message] });
  await until('the prepare is at the broker', () => broker.requests.length === 1);
  await producer.commit(idOf(1));
  expect(performance.now() - startedAt).toBeLessThan(2_500);
  await prepared;
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(2_999);
  expect(broker.requests).toHaveLength(3);
});

test('an operation put off past its time limit ends at once, with the problem as its cause', async () => {
  const { broker, producer } = await start([putOff({ retryAfterSeconds: 60 })], {});
  const startedAt = performance.now();
  await expect(producer.prepare({ messages: [message] })).rejects.toMatchObject({
    code: 'BROKER_UNREACHABLE',
    message: expect.stringContaining('past its limit of 2000 ms'),
    cause: { code: 'BROKER_BUSY', details: { retryAfterSeconds: 60 } },
  });
  // Not at the limit.
  expect(performance.now() - startedAt).toBeLessThan(1_900);
  expect(broker.requests).toHaveLength(1);
});

test('a broker that names no time is asked again soon', async () => {
  const { producer } = await start([putOff(), putOff({ retryAfterSeconds: -1 })], {});
  const startedAt = performance.now();
  expect(await producer.commit(idOf(1))).toEqual(decided(idOf(1), 'commit'));
  // Two pauses; one of a second each would be what a broker asks for.
  expect(performance.now() - startedAt).toBeLessThan(1_900);
});

test('a whole answer that puts off is repeated no sooner than its header says', async () => {
  const busy = problemAnswer(new EscrowError('SHUTTING_DOWN', 'ending'), { 'retry-after': '1' });
  const { producer } = await start([busy], {});
  const startedAt = performance.now();
  await producer.commit(idOf(1));
  expect(performance.now() - startedAt).toBeGreaterThanOrEqual(999);
});

test('pauses are spread, are never shorter than the broker asked for, and at most a quarter longer', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 50 }), fc.nat(10_000), (failures, retryAfterMs) => {
      const pauseMs = pauseBeforeRepeatMs(failures, retryAfterMs);
      expect(pauseMs).toBeGreaterThanOrEqual(retryAfterMs);
      expect(pauseMs).toBeLessThanOrEqual(Math.max(1_000, retryAfterMs * 1.25));
      expect(backOffMs(failures)).toBeGreaterThan(0);
    }),
  );
  const pauses = new Set(Array.from({ length: 100 }, () => pauseBeforeRepeatMs(1, 1_000)));
  expect(pauses.size).toBeGreaterThan(90);
  expect(Math.max(...pauses) - Math.min(...pauses)).toBeGreaterThan(100);
});

test.each(['operationsWaitingMax', 'operationsWaitingBytesMax'])(
  '%s must be a whole number from 1',
  (name) => {
    for (const value of [0, -1, 1.5, Number.NaN, Number.POSITIVE_INFINITY]) {
      expect(() =>
        createProducer({
          brokers: ['http://127.0.0.1:1'],
          producerGroup: 'accounts',
          [name]: value,
        }),
      ).toThrow(`${name} is ${value}`);
    }
  },
);

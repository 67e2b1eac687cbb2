import { createProducer, type Producer, type ProducerOptions } from '@escrowmq/producer';
import { EscrowError, toProblem } from '@escrowmq/protocol';
import { afterEach, describe, expect, test } from '@jest/globals';
import { type FakeBroker, problemAnswer, startFakeBroker } from '../support/fake-broker.js';

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

async function broker(): Promise<FakeBroker> {
  const started = await startFakeBroker();
  open.push(started);
  return started;
}

function producerOf(brokers: FakeBroker[], options: Partial<ProducerOptions> = {}): Producer {
  const producer = createProducer({
    brokers: brokers.map(({ address }) => address),
    producerGroup: 'accounts',
    ...options,
  });
  open.unshift(producer);
  return producer;
}

const prepareWith = (producer: Producer, data: unknown) =>
  producer.prepare({ messages: [{ topic: 'user', data }] }).then(
    () => 'prepared',
    (error: unknown) => (error instanceof EscrowError ? error.code : String(error)),
  );

describe('U01: a batch that is refused whole harms nobody but the culprit', () => {
  const CULPRIT = 'the culprit';
  const KILOBYTE = 'x'.repeat(1_000);

  test.each<[string, (body: string) => EscrowError | undefined, string]>([
    [
      'by the broker, with 400',
      (body) => (body.includes(CULPRIT) ? new EscrowError('INVALID_JSON', 'no') : undefined),
      'INVALID_JSON',
    ],
    [
      'by the broker, with 500',
      (body) => (body.includes(CULPRIT) ? new EscrowError('INTERNAL_ERROR', 'oh') : undefined),
      'BROKER_UNREACHABLE',
    ],
  ])('%s', async (_, refuseBody, code) => {
    const fake = await broker();
    fake.refuseBody = refuseBody;
    const producer = producerOf([fake], { prepareTimeoutMs: 1_500 });
    const calls = Array.from({ length: 100 }, (_, n) =>
      prepareWith(producer, n === 37 ? CULPRIT : n),
    );
    const outcomes = await Promise.all(calls);
    expect(outcomes[37]).toBe(code);
    expect(outcomes.filter((outcome) => outcome === 'prepared')).toHaveLength(99);
    // 14 find one of 100; alone it is repeated until its time is over.
    expect(fake.requests.length).toBeLessThan(35);
  });

  test('by a proxy that takes no more than some kilobytes, and its batches are split', async () => {
    const fake = await broker();
    const producer = producerOf([fake]);
    // As nginx says it: no broker wrote that.
    fake.bodyBytesMax = 20_000;
    const calls = Array.from({ length: 40 }, () => prepareWith(producer, KILOBYTE));
    const large = prepareWith(producer, 'x'.repeat(30_000));
    expect(await Promise.all(calls)).toEqual(calls.map(() => 'prepared'));
    expect(await large).toBe('BODY_TOO_LARGE');
  });

  test('a broker that fails over everything gets no storm of requests', async () => {
    const fake = await broker();
    fake.refuseBody = () => new EscrowError('INTERNAL_ERROR', 'broken');
    const producer = producerOf([fake], { prepareTimeoutMs: 300 });
    const outcomes = await Promise.all(
      Array.from({ length: 400 }, (_, n) => prepareWith(producer, n)),
    );
    expect(new Set(outcomes)).toEqual(new Set(['BROKER_UNREACHABLE']));
    expect(fake.requests.length).toBeLessThan(800);
  });

  test('a batch that the key may not send is refused at once, and not sent in halves', async () => {
    const fake = await broker();
    fake.refuseBody = () => new EscrowError('UNAUTHENTICATED', 'no key');
    const producer = producerOf([fake]);
    const outcomes = await Promise.all(
      Array.from({ length: 50 }, (_, n) => prepareWith(producer, n)),
    );
    expect(new Set(outcomes)).toEqual(new Set(['UNAUTHENTICATED']));
    expect(fake.requests).toHaveLength(1);
  });
});

describe('X1: a broker that can not serve is left at once', () => {
  const away = new EscrowError('STORE_UNAVAILABLE', 'the store is away', {
    details: { retryAfterSeconds: 1 },
  });

  test('a batch whose every retryable result is a 503 goes to the next address without a pause', async () => {
    const [first, second] = [await broker(), await broker()];
    first.refuse = () => away;
    const producer = producerOf([first, second]);
    const startedAt = performance.now();
    const outcomes = await Promise.all(
      Array.from({ length: 20 }, (_, n) => prepareWith(producer, n)),
    );
    expect(new Set(outcomes)).toEqual(new Set(['prepared']));
    // Not the second that the first one asked for.
    expect(performance.now() - startedAt).toBeLessThan(900);
    // And nobody asks the first again while it rests.
    await prepareWith(producer, 1);
    expect(first.requests).toHaveLength(1);
  });

  test('single calls alike, and the address stays behind', async () => {
    const [first, second] = [await broker(), await broker()];
    const id = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
    const view = {
      status: 404,
      body: JSON.stringify(toProblem(new EscrowError('TRANSACTION_NOT_FOUND', 'no'))),
    };
    first.script.push(problemAnswer(away, { 'retry-after': '1' }));
    second.script.push(view);
    const producer = producerOf([first, second]);
    const startedAt = performance.now();
    await expect(producer.query(id)).rejects.toMatchObject({ code: 'TRANSACTION_NOT_FOUND' });
    expect(performance.now() - startedAt).toBeLessThan(900);
    expect(await prepareWith(producer, 1)).toBe('prepared');
    expect(first.requests).toHaveLength(1);
  });

  test('with one address the pause that it asked for stays', async () => {
    const fake = await broker();
    let refusals = 1;
    fake.refuse = () => (refusals-- > 0 ? away : undefined);
    const startedAt = performance.now();
    expect(await prepareWith(producerOf([fake]), 1)).toBe('prepared');
    expect(performance.now() - startedAt).toBeGreaterThan(990);
  });

  test('a batch in which something else can be repeated is no reason to leave', async () => {
    const [first, second] = [await broker(), await broker()];
    let refusals = 2;
    first.refuse = () =>
      refusals-- > 0 ? (refusals > 0 ? away : new EscrowError('INTERNAL_ERROR', 'oh')) : undefined;
    const producer = producerOf([first, second]);
    const outcomes = await Promise.all([prepareWith(producer, 1), prepareWith(producer, 2)]);
    expect(outcomes).toEqual(['prepared', 'prepared']);
    expect(first.requests.length).toBeGreaterThan(1);
  });
});

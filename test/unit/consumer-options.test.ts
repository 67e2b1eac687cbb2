import { createConsumer, type SubscribeOptions } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import { parseSubscribeOptions } from '../../consumer-sdk/src/options.js';

const consumer = createConsumer({ rabbitmq: 'amqp://localhost' });
const names = { topic: 'user', group: 'phone-index' };

const refusal = (options: object) =>
  consumer
    .subscribe(options as SubscribeOptions, () => {})
    .then(
      () => 'nothing was refused',
      (error) => error,
    );

test.each([
  ['concurrency', { concurrency: 0 }],
  ['concurrency', { concurrency: 1.5 }],
  ['concurrency', { concurrency: '16' }],
  ['handlerTimeoutMs', { handlerTimeoutMs: 0 }],
  ['handlerTimeoutMs', { handlerTimeoutMs: 30 * 60_000 }],
  ['drainTimeoutMs', { drainTimeoutMs: -1 }],
  ['routingKeys', { routingKeys: [] }],
  ['routingKeys', { routingKeys: 'registered' }],
  ['retryDelaysMs', { retryDelaysMs: 1000 }],
  ['retryDelaysMs.1', { retryDelaysMs: [1000, 0] }],
  ['retryDelaysMs', { retryDelaysMs: [1000, 500] }],
  ['retryDelaysMs', { retryDelaysMs: new Array(33).fill(1000) }],
  ['ordered', { ordered: true }],
  ['ordered', { ordered: null }],
  ['ordered.partitions', { ordered: { partitions: 0 } }],
  ['ordered.partitions', { ordered: { partitions: 33 } }],
  ['ordered.partition', { ordered: { partition: 8 } }],
  // Retried in its place, a message is out all the time: 24 min of pauses and 2 min of handlers.
  ['retryDelaysMs', { ordered: {}, retryDelaysMs: [24 * 60_000] }],
  ['retryDelaysMs', { ordered: {}, retryDelaysMs: [1], handlerTimeoutMs: 13 * 60_000 }],
  ['retryJitter', { retryJitter: 1.1 }],
  ['retryJitter', { retryJitter: '0.2' }],
])('subscribe refuses a wrong %s and names it: %j', async (path, options) => {
  const error = await refusal({ ...names, ...options });
  expect(error).toMatchObject({ name: 'EscrowError', code: 'INVALID_CONFIGURATION' });
  expect(error.fields.map((field: { path: string }) => field.path)).toContain(path);
});

test.each([
  ['topic', { topic: 'a:b' }],
  ['topic', { topic: 'amq.topic' }],
  ['topic', { topic: '' }],
  ['group', { group: 'a,b' }],
  ['a routing key', { routingKeys: ['x'.repeat(256)] }],
])('subscribe refuses %s when it is not a name: %j', async (what, options) => {
  const error = await refusal({ ...names, ...options });
  expect(error).toMatchObject({ code: 'INVALID_NAME', message: expect.stringContaining(what) });
});

test('the default delays of an ordered subscription fit into the time of one delivery', () => {
  const { retryDelaysMs, ordered } = parseSubscribeOptions({ ...names, ordered: {} });
  expect(ordered).toEqual({ partitions: 8 });
  expect(retryDelaysMs).toHaveLength(7);
  expect(retryDelaysMs.reduce((sum, delayMs) => sum + delayMs)).toBeLessThan(10 * 60_000);
});

test('an option with a typing mistake is refused and not ignored', async () => {
  expect(await refusal({ ...names, concurency: 3 })).toMatchObject({
    code: 'UNKNOWN_FIELD',
    message: expect.stringContaining('concurency'),
  });
});

test.each(['http://localhost', 'localhost:5672', '', undefined, 'amqp://'])(
  'createConsumer refuses %p as the address of RabbitMQ',
  (rabbitmq) => {
    expect(() => createConsumer({ rabbitmq: rabbitmq as string })).toThrow(/amqp:\/\/ or amqps:/);
  },
);

test('a refused address is not shown, because it may hold a password', () => {
  expect(() => createConsumer({ rabbitmq: 'http://user:secret@host' })).toThrow(
    expect.objectContaining({ message: expect.not.stringContaining('secret') }),
  );
});

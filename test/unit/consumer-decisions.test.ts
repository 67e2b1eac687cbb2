import { HEADERS } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import type { ConsumeMessage } from 'amqplib';
import { causeOf } from '../../consumer-sdk/src/cause.js';
import { parseDelivery } from '../../consumer-sdk/src/delivery/message.js';
import { queuesOf } from '../../consumer-sdk/src/rabbit/topology.js';
import { copyProperties } from '../../consumer-sdk/src/settle/copy.js';
import {
  afterError,
  beforeItsTime,
  type RetryPolicy,
  requeuePauseMs,
} from '../../consumer-sdk/src/settle/next-step.js';
import { PermanentError } from '../../consumer-sdk/src/settle/permanent-error.js';
import { RetryLater } from '../../consumer-sdk/src/settle/retry-later.js';
import { Spread } from '../../consumer-sdk/src/settle/spread.js';
import { amqpProperties, bodyOf, type TestMessage } from '../support/publish.js';

/** A delivery as amqplib hands it over. */
function delivery(message: TestMessage, changes: Record<string, unknown> = {}): ConsumeMessage {
  const properties = { ...amqpProperties(message), ...changes };
  const fields = { deliveryTag: 1, redelivered: false, exchange: '', routingKey: 'k' };
  return { content: bodyOf(message), fields, properties } as unknown as ConsumeMessage;
}

const NOW = 1_000_000;
/** A policy that takes nothing off a delay. */
const policy = (...retryDelaysMs: number[]): RetryPolicy => ({
  retryDelaysMs,
  shortened: (delayMs) => delayMs,
  now: () => NOW,
});
const tries = (attempts: number, postponed = 0) => ({ attempts, postponed });

test('each failure takes the next delay, and after the last one comes the dead letter', () => {
  const after = (attempts: number) =>
    afterError(new Error('no'), tries(attempts, 3), policy(10, 20));
  const retry = { step: 'retry', postponed: 3 };
  expect(after(0)).toEqual({ ...retry, queueMs: 10, inMs: 10, attempts: 1 });
  expect(after(1)).toEqual({ ...retry, queueMs: 20, inMs: 20, attempts: 2 });
  expect(after(2)).toEqual({
    step: 'deadLetter',
    reason: 'exhausted',
    attempts: 3,
    postponed: 3,
  });
});

test('a message from the dead-letter queue with all attempts spent gets one more', () => {
  const next = afterError(new Error('no'), tries(9), policy(10));
  expect(next).toMatchObject({ reason: 'exhausted', attempts: 10 });
});

test('a permanent failure is a dead letter whatever delays are left', () => {
  const next = afterError(new PermanentError('no'), tries(0), policy(10));
  expect(next).toMatchObject({ step: 'deadLetter', reason: 'permanent', attempts: 1 });
});

test('a message asked for later waits in the smallest queue that is long enough, and spends no attempt', () => {
  const later = (ms: number) => afterError(new RetryLater(ms), tries(1, 4), policy(10, 20, 50));
  const postpone = { step: 'postpone', attempts: 1, postponed: 5 };
  expect(later(5)).toEqual({ ...postpone, queueMs: 10, inMs: 5 });
  expect(later(10)).toEqual({ ...postpone, queueMs: 10, inMs: 10 });
  expect(later(10.5)).toEqual({ ...postpone, queueMs: 20, inMs: 11 });
  expect(later(51)).toEqual({ ...postpone, queueMs: 50, inMs: 50, notBefore: NOW + 51 });
});

test('a message asked for later 100 times fails from then on', () => {
  const later = (postponed: number) =>
    afterError(new RetryLater(5), tries(1, postponed), policy(10, 20));
  expect(later(99)).toMatchObject({ step: 'postpone', postponed: 100 });
  expect(later(100)).toMatchObject({ step: 'retry', queueMs: 20, attempts: 2, postponed: 100 });
});

test('asking for later where there is no retry queue is a failure', () => {
  expect(afterError(new RetryLater(5), tries(0), policy())).toMatchObject({ reason: 'exhausted' });
});

test('on its way through several retry queues a message waits for what remains', () => {
  const at = (notBefore: number) => beforeItsTime(notBefore, tries(1, 2), policy(10, 50));
  const postpone = { step: 'postpone', attempts: 1, postponed: 2 };
  expect(at(NOW + 80)).toEqual({ ...postpone, queueMs: 50, inMs: 50, notBefore: NOW + 80 });
  expect(at(NOW + 7)).toEqual({ ...postpone, queueMs: 10, inMs: 7 });
  expect(at(NOW)).toBeUndefined();
});

test.each([0, -1, Number.NaN, 86_400_001, '5' as unknown as number])(
  'RetryLater refuses %p',
  (ms) => {
    expect(() => new RetryLater(ms)).toThrow('RetryLater takes 1 to 86400000 ms');
  },
);

test('RetryLater tells its cause', () => {
  expect(new RetryLater(5, 'not paid').message).toBe('again in 5 ms: not paid');
  const cause = new TypeError('no lock');
  expect(new RetryLater(5, cause)).toMatchObject({
    message: 'again in 5 ms: TypeError: no lock',
    cause,
  });
});

test('messages that fail together come back evenly over the part, and never after the delay', () => {
  const spread = new Spread(0.2, 100);
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const waits = Array.from({ length: 100 }, () => spread.next(1000, NOW, random()));
  const tenths = Array.from({ length: 4 }, (_, n) => {
    return waits.filter((wait) => wait > 800 + n * 50 && wait <= 850 + n * 50).length;
  });
  // 25 each, if it were perfect.
  for (const count of tenths) expect(count).toBeGreaterThan(15);
  // They leave a queue in the order in which they came into it.
  expect(waits).toEqual([...waits].sort((a, b) => a - b));
  for (let n = 0; n < 500; n += 1)
    expect(spread.next(1000, NOW, random())).toBeLessThanOrEqual(1000);
  // Later ones, and those of another delay, begin again.
  expect(spread.next(1000, NOW + 5000, 0)).toBe(800);
  expect(spread.next(50, NOW, 0)).toBe(40);
  expect(new Spread(0, 16).next(1000, NOW, 0.9)).toBe(1000);
  expect(new Spread(1, 16).next(1, NOW, 0)).toBe(1);
});

test('the pause before a requeue grows from a second to half a minute', () => {
  expect([0, 1, 2, 5, 99].map(requeuePauseMs)).toEqual([1000, 2000, 4000, 30_000, 30_000]);
});

test('a copy keeps what the producer sent and drops what RabbitMQ would act on', () => {
  const message = { topic: 't', routingKey: 'k', headers: { tenant: 'a' } };
  const original = delivery(message, { userId: 'guest', expiration: '1', correlationId: 'c' });
  Object.assign(original.properties.headers!, {
    CC: ['elsewhere'],
    bcc: ['elsewhere'],
    'x-death': [{ count: 1 }],
    'x-delivery-count': 3,
    [HEADERS.deadReason]: 'exhausted',
  });
  const step = { step: 'retry', queueMs: 10, inMs: 10, attempts: 2, postponed: 0 } as const;
  const copy = copyProperties(original, step, { group: 'g', cause: 'Error: no', now: 5000 });
  const { messageId, timestamp } = original.properties;
  expect(copy).toMatchObject({
    messageId,
    timestamp,
    type: 'k',
    appId: 'test-producers',
    contentType: 'application/json',
    correlationId: 'c',
  });
  expect(copy).not.toHaveProperty('userId');
  expect(copy).not.toHaveProperty('expiration');
  expect(copy.headers).toEqual({
    ...amqpProperties({ ...message, transactionId: messageId.slice(0, 36) }).headers,
    [HEADERS.preparedAt]: original.properties.headers![HEADERS.preparedAt],
    [HEADERS.attempts]: 2,
    [HEADERS.firstFailedAt]: 5000,
    [HEADERS.lastFailedAt]: 5000,
    [HEADERS.consumerGroup]: 'g',
    [HEADERS.cause]: 'Error: no',
  });
});

test('a copy of a copy remembers the first failure', () => {
  const original = delivery({ topic: 't', headers: {} });
  original.properties.headers![HEADERS.firstFailedAt] = 1000;
  original.properties.headers![HEADERS.consumerGroup] = 'g';
  const step = { step: 'deadLetter', reason: 'exhausted', attempts: 2, postponed: 0 } as const;
  const { headers } = copyProperties(original, step, { group: 'g', cause: 'x', now: 9000 });
  expect(headers).toMatchObject({
    [HEADERS.firstFailedAt]: 1000,
    [HEADERS.lastFailedAt]: 9000,
    [HEADERS.deadReason]: 'exhausted',
  });
});

test('a postponed copy tells when and how often, and nothing of a failure', () => {
  const original = delivery({ topic: 't' });
  Object.assign(original.properties.headers!, {
    [HEADERS.consumerGroup]: 'other',
    [HEADERS.attempts]: 9,
    [HEADERS.cause]: 'of the other',
    [HEADERS.notBefore]: 3,
  });
  const about = { group: 'g', cause: 'not yet', now: 9000 };
  const step = { step: 'postpone', queueMs: 10, attempts: 0, postponed: 2 } as const;
  const copy = copyProperties(original, { ...step, inMs: 4 }, about);
  expect(copy.expiration).toBe(4);
  expect(copy.headers).toMatchObject({ [HEADERS.attempts]: 0, [HEADERS.postponed]: 2 });
  for (const name of [HEADERS.notBefore, HEADERS.cause, HEADERS.lastFailedAt]) {
    expect(copy.headers).not.toHaveProperty([name]);
  }
  const hop = copyProperties(original, { ...step, inMs: 10, notBefore: 9050 }, about);
  expect(hop).not.toHaveProperty('expiration');
  expect(hop.headers).toHaveProperty([HEADERS.notBefore], 9050);
});

test.each([
  ['no message id', { messageId: undefined }, /no message id/],
  ['a message id of another shape', { messageId: 'order-7' }, /not <transaction id>/],
  ['no headers', { headers: undefined }, /escrow-transaction-id/],
  ['no producer group', { appId: undefined }, /app id/],
])('a delivery with %s is foreign', (_what, changes, cause) => {
  const parsed = parseDelivery(delivery({ topic: 't' }, changes), 'g');
  expect(parsed).toEqual({ kind: 'foreign', cause: expect.stringMatching(cause) });
});

test.each([
  HEADERS.transactionId,
  HEADERS.messageNumber,
  HEADERS.topic,
  HEADERS.routingKey,
  HEADERS.preparedAt,
  HEADERS.bodyCrc32,
])('a delivery without header %s is foreign', (header) => {
  const original = delivery({ topic: 't' });
  delete original.properties.headers![header];
  const cause = expect.stringContaining(header);
  expect(parseDelivery(original, 'g')).toEqual({ kind: 'foreign', cause });
});

test('a delivery whose body is not the one that was sent is altered, whatever its type', () => {
  const sent = { topic: 't', body: Buffer.from('{"sum":100}') };
  for (const contentType of ['application/json', 'application/octet-stream']) {
    for (const body of ['{"sum":900}', '{"sum":100', '']) {
      const original = delivery({ ...sent, contentType });
      original.content = Buffer.from(body);
      expect(parseDelivery(original, 'g')).toMatchObject({
        kind: 'altered',
        cause: expect.stringMatching(/^the body has CRC-32 \d+ and left the broker with \d+$/),
      });
    }
    expect(parseDelivery(delivery({ ...sent, contentType }), 'g').kind).toBe('message');
  }
});

test('JSON is parsed with a charset behind its content type, and only JSON', () => {
  const parsed = (contentType: string) =>
    parseDelivery(delivery({ topic: 't', data: { a: 1 }, contentType }), 'g');
  expect(parsed('application/json; charset=utf-8')).toMatchObject({ data: { a: 1 } });
  expect(parsed('Application/JSON')).toMatchObject({ data: { a: 1 } });
  expect(parsed('application/jsonx')).toMatchObject({ kind: 'message', data: undefined });
});

test('a group is expected when it is one of the names, not a part of one', () => {
  const isExpected = (group: string) => {
    const parsed = parseDelivery(delivery({ topic: 't', expects: ['mail-index', 'phone'] }), group);
    return parsed.kind === 'message' && parsed.envelope.receiptsQueue !== undefined;
  };
  expect(isExpected('phone')).toBe(true);
  expect(isExpected('mail')).toBe(false);
  expect(isExpected('')).toBe(false);

  // A queue that is none of receipts is somebody else's, whatever the message says.
  const forged = delivery({ topic: 't', expects: ['phone'] });
  forged.properties.replyTo = 'payments';
  expect(parseDelivery(forged, 'phone')).toMatchObject({
    envelope: { receiptsQueue: undefined },
  });
});

test('an attempts header that is no count is taken for no attempts', () => {
  for (const attempts of [-1, 1.5, '3', Number.NaN, null]) {
    const original = delivery({ topic: 't', headers: {} });
    original.properties.headers![HEADERS.attempts] = attempts;
    original.properties.headers![HEADERS.consumerGroup] = 'g';
    expect(parseDelivery(original, 'g')).toMatchObject({ envelope: { attempts: 0 } });
  }
});

test("the failures of another group do not count as this group's", () => {
  const original = delivery({ topic: 't', headers: {} });
  Object.assign(original.properties.headers!, {
    [HEADERS.attempts]: 10,
    [HEADERS.firstFailedAt]: 1000,
    [HEADERS.consumerGroup]: 'other',
  });
  expect(parseDelivery(original, 'g')).toMatchObject({ envelope: { attempts: 0 } });
  expect(parseDelivery(original, 'other')).toMatchObject({ envelope: { attempts: 10 } });
  const step = { step: 'retry', queueMs: 1, inMs: 1, attempts: 1, postponed: 0 } as const;
  const { headers } = copyProperties(original, step, { group: 'g', cause: 'x', now: 9000 });
  expect(headers[HEADERS.firstFailedAt]).toBe(9000);
});

test('a cause is short and never ends in half a character', () => {
  expect(causeOf(new RangeError('too far'))).toBe('RangeError: too far');
  expect(causeOf('text')).toBe('text');
  const cut = causeOf(`${'x'.repeat(499)}😀`);
  expect(cut).toBe('x'.repeat(499));
});

test('no queue of a group can lose what it hands on, and every queue is quorum (F62)', () => {
  const queues = queuesOf({ topic: 't', group: 'g', routingKeys: ['#'], retryDelaysMs: [5, 5, 9] });
  expect(queues.map(({ name }) => name)).toEqual([
    'escrow:t:g:dead',
    'escrow:t:g',
    'escrow:t:g:retry-5ms',
    'escrow:t:g:retry-9ms',
  ]);
  for (const queue of queues) {
    expect(queue.arguments['x-queue-type']).toBe('quorum');
    if (!('x-dead-letter-exchange' in queue.arguments)) continue;
    expect(queue.arguments).toMatchObject({
      'x-dead-letter-exchange': '',
      'x-dead-letter-strategy': 'at-least-once',
      'x-overflow': 'reject-publish',
    });
  }
});

test('a body is read with a mark in front of it, and one that is not UTF-8 is not replaced', () => {
  const withBody = (content: Buffer) => parseDelivery(delivery({ topic: 't', body: content }), 'g');
  expect(withBody(Buffer.from('\uFEFF{"name":"Ödön"}'))).toMatchObject({
    kind: 'message',
    data: { name: 'Ödön' },
  });
  expect(withBody(Buffer.from('"Ödön"', 'latin1'))).toMatchObject({
    kind: 'unreadable',
    cause: 'the body is not UTF-8',
  });
  expect(withBody(Buffer.from('{'))).toMatchObject({ kind: 'unreadable' });
});

import { HEADERS } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import type { ConsumeMessage } from 'amqplib';
import { causeOf } from '../../consumer-sdk/src/cause.js';
import { parseDelivery } from '../../consumer-sdk/src/delivery/message.js';
import { queuesOf } from '../../consumer-sdk/src/rabbit/topology.js';
import { copyProperties } from '../../consumer-sdk/src/settle/copy.js';
import { afterFailure, requeuePauseMs } from '../../consumer-sdk/src/settle/next-step.js';
import { amqpProperties, bodyOf, type TestMessage } from '../support/publish.js';

/** A delivery as amqplib hands it over. */
function delivery(message: TestMessage, changes: Record<string, unknown> = {}): ConsumeMessage {
  const properties = { ...amqpProperties(message), ...changes };
  const fields = { deliveryTag: 1, redelivered: false, exchange: '', routingKey: 'k' };
  return { content: bodyOf(message), fields, properties } as unknown as ConsumeMessage;
}

test('each failure takes the next delay, and after the last one comes the dead letter', () => {
  const delays = [10, 20];
  expect(afterFailure(0, false, delays)).toEqual({ step: 'retry', delayMs: 10, attempts: 1 });
  expect(afterFailure(1, false, delays)).toEqual({ step: 'retry', delayMs: 20, attempts: 2 });
  expect(afterFailure(2, false, delays)).toEqual({
    step: 'deadLetter',
    reason: 'exhausted',
    attempts: 3,
  });
});

test('a message from the dead-letter queue with all attempts spent gets one more', () => {
  expect(afterFailure(9, false, [10])).toMatchObject({ reason: 'exhausted', attempts: 10 });
});

test('a permanent failure is a dead letter whatever delays are left', () => {
  expect(afterFailure(0, true, [10])).toMatchObject({ step: 'deadLetter', reason: 'permanent' });
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
  const step = { step: 'retry', delayMs: 10, attempts: 2 } as const;
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
  const step = { step: 'deadLetter', reason: 'exhausted', attempts: 2 } as const;
  const { headers } = copyProperties(original, step, { group: 'g', cause: 'x', now: 9000 });
  expect(headers).toMatchObject({
    [HEADERS.firstFailedAt]: 1000,
    [HEADERS.lastFailedAt]: 9000,
    [HEADERS.deadReason]: 'exhausted',
  });
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
  const step = { step: 'retry', delayMs: 1, attempts: 1 } as const;
  const { headers } = copyProperties(original, step, { group: 'g', cause: 'x', now: 9000 });
  expect(headers[HEADERS.firstFailedAt]).toBe(9000);
});

test('a cause is short and never ends in half a character', () => {
  expect(causeOf(new RangeError('too far'))).toBe('RangeError: too far');
  expect(causeOf('text')).toBe('text');
  const cut = causeOf(`${'x'.repeat(499)}😀`);
  expect(cut).toBe('x'.repeat(499));
});

test('no queue of a group can lose what it hands on, and every queue is quorum', () => {
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

import { expect, test } from '@jest/globals';
import { outcomeOf, retryAfterMs } from '../../broker/src/notify/outcome.js';
import { requestHeaders } from '../../broker/src/notify/request-headers.js';
import { delivered } from '../support/webhook-fakes.js';

const NOW = Date.UTC(2026, 0, 1, 12);
const DAY_MS = 24 * 60 * 60 * 1000;

const of = (status: number, retryAfter?: string) => outcomeOf({ status, retryAfter }, NOW);
const failed = (detail: string) => ({ kind: 'failed', detail });
const later = (status: number, afterMs: number) => ({
  kind: 'later',
  afterMs,
  detail: `HTTP ${status} with Retry-After`,
});

test.each([200, 201, 204, 299])('HTTP %i is delivered', (status) => {
  expect(of(status)).toEqual({ kind: 'delivered' });
});

test('HTTP 410 is gone, with whatever else it says', () => {
  expect(of(410)).toEqual({ kind: 'gone' });
  expect(of(410, '60')).toEqual({ kind: 'gone' });
});

test.each([301, 302, 303, 307, 308])('HTTP %i is a failure: it is not followed', (status) => {
  expect(of(status)).toEqual(failed(`HTTP ${status}: a redirect, which is not followed`));
});

test.each([199, 400, 401, 404, 408, 422, 429, 500, 502, 503, 504])(
  'HTTP %i without Retry-After is a failure',
  (status) => {
    expect(of(status)).toEqual(failed(`HTTP ${status}`));
  },
);

test.each<[number, string, number]>([
  [429, '120', 120_000],
  [503, ' 7 ', 7_000],
  [429, 'Thu, 01 Jan 2026 12:00:30 GMT', 30_000],
  // Neither a loop as fast as it refuses, nor for ever.
  [429, '0', 1_000],
  [429, 'Thu, 01 Jan 2026 11:00:00 GMT', 1_000],
  [503, '9999999', DAY_MS],
  [503, 'Fri, 01 Jan 2027 12:00:00 GMT', DAY_MS],
])('HTTP %i with Retry-After %j comes %i ms later', (status, value, afterMs) => {
  expect(of(status, value)).toEqual(later(status, afterMs));
});

test.each(['', 'soon', '-1', '1.5', '7.5 s', '1e3', '99999999999', 'Thu'])(
  'Retry-After %j says nothing',
  (value) => {
    expect(retryAfterMs(value, NOW)).toBeUndefined();
    expect(of(429, value)).toEqual(failed('HTTP 429'));
  },
);

test('Retry-After counts with 429 and 503 only', () => {
  expect(of(500, '60')).toEqual(failed('HTTP 500'));
  expect(of(301, '60').kind).toBe('failed');
});

test('a request names its message as RabbitMQ does, and counts attempts from one', () => {
  const trace = {
    traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    tracestate: 'a=1',
  };
  const message = delivered({ headers: trace, attempts: 2, number: 3, preparedAt: 5 });
  expect(requestHeaders(message)).toEqual({
    'user-agent': 'escrowmq-broker',
    'content-type': 'application/json',
    'escrow-transaction-id': message.transactionId,
    'escrow-message-number': '3',
    'escrow-topic': 'orders',
    'escrow-routing-key': 'placed',
    'escrow-prepared-at': '5',
    'escrow-producer-group': 'shop',
    'escrow-attempt': '3',
    ...trace,
  });
});

test("a producer's own headers do not speak for the broker", () => {
  const headers = { authorization: 'Bearer x', host: 'elsewhere', 'webhook-id': 'x', tenant: 'a' };
  const sent = requestHeaders(delivered({ headers }));
  for (const name of Object.keys(headers)) expect(sent).not.toHaveProperty(name);
});

test('a message that is a CloudEvent is one over HTTP too', () => {
  const headers = {
    'cloudEvents:specversion': '1.0',
    'cloudEvents:subject': 'a 100 % "中"',
    'cloudEvents:id': 7,
  };
  const sent = requestHeaders(delivered({ headers }));
  expect(sent).toMatchObject({
    'ce-specversion': '1.0',
    'ce-subject': 'a%20100%20%25%20%22%E4%B8%AD%22',
  });
  expect(Object.keys(sent).filter((name) => /cloud|ce-id/.test(name))).toEqual([]);
});

test('what no header can hold is percent-encoded', () => {
  const sent = requestHeaders(
    delivered({ routingKey: 'a b.中\u0000', contentType: 'text/plain\r\nx: 1' }),
  );
  expect(sent['escrow-routing-key']).toBe('a b.%E4%B8%AD%00');
  expect(sent['content-type']).toBe('text/plain%0D%0Ax: 1');
});

import { expect, test } from '@jest/globals';
import {
  bodyBytesMaxNamedIn,
  exchangeNamedIn,
  isRefusal,
  returnReason,
} from '../../broker/src/rabbit/replies.js';

const reply = (code: number, message: string) => Object.assign(new Error(message), { code });

test('a reply that another attempt would get again is a refusal', () => {
  expect(isRefusal(reply(406, "inequivalent arg 'type' for exchange 'user'"))).toBe(true);
  expect(isRefusal(reply(403, "access to exchange 'user' refused"))).toBe(true);
  expect(isRefusal(new RangeError('field does not fit'))).toBe(true);
});

test('the end of a channel or connection is no refusal', () => {
  expect(isRefusal(new Error('Channel ended, no reply will be forthcoming'))).toBe(false);
  expect(isRefusal(reply(541, 'INTERNAL_ERROR'))).toBe(false);
  expect(isRefusal(Object.assign(new Error('reset'), { code: 'ECONNRESET' }))).toBe(false);
});

test('the exchange is read from the text of a reply', () => {
  const missing =
    "Channel closed by server: 404 (NOT-FOUND) with message \"NOT_FOUND - no exchange 'user.v2' in vhost '/'\"";
  expect(exchangeNamedIn(reply(404, missing))).toBe('user.v2');
  expect(exchangeNamedIn(reply(404, "NOT_FOUND - no queue 'user' in vhost '/'"))).toBeUndefined();
});

test('the largest message is read from the texts of several versions of RabbitMQ', () => {
  for (const text of [
    'message size 200000 larger than max size 100000',
    'message size 200000 is larger than configured max size 100000',
  ]) {
    expect(bodyBytesMaxNamedIn(reply(406, `PRECONDITION_FAILED - ${text}`))).toBe(100_000);
  }
  expect(
    bodyBytesMaxNamedIn(reply(406, 'PRECONDITION_FAILED - invalid expiration')),
  ).toBeUndefined();
});

test('the reason of a return is its code and text', () => {
  expect(returnReason({ replyCode: 312, replyText: 'NO_ROUTE' })).toBe('312 NO_ROUTE');
});

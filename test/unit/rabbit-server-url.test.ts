import { expect, test } from '@jest/globals';
import { parseServerUrl, withoutPassword } from '../../broker/src/rabbit/server-url.js';

test('what is shown of a URL has neither user nor password', () => {
  const { shown } = parseServerUrl('amqp://broker:s3cret@mq.example:5673/orders');
  expect(shown).toBe('mq.example:5673/orders');
});

test('the heartbeat is set unless the URL sets one', () => {
  expect(parseServerUrl('amqp://mq.example').withHeartbeat(5)).toContain('heartbeat=5');
  const configured = parseServerUrl('amqps://mq.example/%2F?heartbeat=30&frameMax=8192');
  expect(configured.withHeartbeat(5)).toBe('amqps://mq.example/%2F?heartbeat=30&frameMax=8192');
});

test.each(['amqp://broker:s3cret@mq.example:port', 's3cret', 'https://broker:s3cret@mq.example'])(
  'a URL that is not one of RabbitMQ is refused without repeating it: %s',
  (url) => {
    expect(() => parseServerUrl(url)).toThrow(/URL of RabbitMQ/);
    try {
      parseServerUrl(url);
    } catch (error) {
      const own = Object.getOwnPropertyNames(error).map((name) =>
        Reflect.get(error as Error, name),
      );
      // The stack quotes this file's own path, never the URL.
      expect(JSON.stringify(own)).not.toContain('s3cret');
    }
  },
);

test('an error is passed on without the password, in either of its spellings', () => {
  const server = parseServerUrl('amqp://broker:s3%2Fcret@mq.example');
  const harmless = new Error('connect ECONNREFUSED');
  expect(withoutPassword(harmless, server)).toBe(harmless);
  const telling = withoutPassword(new Error('no: amqp://broker:s3%2Fcret@mq, s3/cret'), server);
  expect(telling.message).toBe('no: amqp://broker:***@mq, ***');
  expect(telling.stack).not.toMatch(/s3(%2F|\/)cret/);
});

test('without a password nothing is taken out', () => {
  const error = new Error('connect ECONNREFUSED');
  expect(withoutPassword(error, parseServerUrl('amqp://mq.example'))).toBe(error);
});

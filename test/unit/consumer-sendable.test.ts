import { describe, expect, test } from '@jest/globals';
import type { ConsumeMessage } from 'amqplib';
import { copyProperties } from '../../consumer-sdk/src/settle/copy.js';
import { channelOnWire, written } from '../support/amqp-wire.js';

const step = { step: 'retry', queueMs: 10, inMs: 10, attempts: 1, postponed: 0 } as const;
const failure = { group: 'g', cause: 'Error: no', now: 1 };

/** A copy of a message with these properties, encoded and read again by the client library. */
async function copied(properties: Record<string, unknown>) {
  const original = { properties } as unknown as ConsumeMessage;
  const wire = channelOnWire();
  wire.channel.publish('', 'q', Buffer.from('{}'), copyProperties(original, step, failure));
  await written();
  const [, header] = wire.frames();
  return header?.fields as Record<string, unknown> & { headers: Record<string, unknown> };
}

describe('U11: what came from RabbitMQ can be sent again', () => {
  test.each([
    ['a double below -2^63', -1e19],
    ['the smallest double', -Number.MAX_VALUE],
    ['a double above 2^63', 1e19],
    ['a fraction beyond 2^50', 2 ** 50 + 0.5],
    ['a negative fraction beyond 2^50', -(2 ** 51) - 0.5],
    ['-2^63', -(2 ** 63)],
    ['no number', Number.NaN],
    ['infinity', Number.POSITIVE_INFINITY],
    ['minus infinity', Number.NEGATIVE_INFINITY],
    ['a usual fraction', 0.1],
    ['a usual number', 7],
    ['nothing', null],
    ['bytes', Buffer.from([0, 255])],
    ['a list', [1, -1e19, 'a', { deep: [2 ** 50 + 0.5] }]],
    ['a time', { '!': 'timestamp', value: 1_790_000_000 }],
    ['a decimal', { '!': 'decimal', value: { places: 2, digits: 314 } }],
  ])('%s', async (_what, value) => {
    expect((await copied({ headers: { value } })).headers.value).toEqual(value);
  });

  test('a time at the end of all times, and a table that looks like a type, arrive as near as can be', async () => {
    const headers = { end: { '!': 'timestamp', value: 2 ** 64 }, odd: { '!': 'x', n: 1 } };
    const copy = await copied({ headers });
    expect(copy.headers).toMatchObject({
      end: { '!': 'timestamp', value: 2 ** 64 - 2_048 },
      odd: '{"!":"x","n":1}',
    });
  });

  test.each([
    'messageId',
    'type',
    'appId',
    'contentType',
    'contentEncoding',
    'correlationId',
    'replyTo',
  ])('a %s that does not fit any more is cut between two characters', async (name) => {
    const copy = await copied({ headers: { ['�'.repeat(100)]: 1 }, [name]: '�'.repeat(128) });
    expect(copy[name]).toBe('�'.repeat(85));
    expect(copy.headers).toHaveProperty(['�'.repeat(85)], 1);
  });
});

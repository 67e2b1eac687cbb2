import { describe, expect, test } from '@jest/globals';
import type { Outgoing } from '../../broker/src/domain/outgoing.js';
import { PublishFrames } from '../../broker/src/rabbit/publish-frames.js';
import { channelOnWire, written } from '../support/amqp-wire.js';
import { outgoing } from '../support/rabbit.js';

/** What the client library writes for the same message. */
async function bytesOfLibrary(message: Outgoing): Promise<string> {
  const { channel, pieces } = channelOnWire();
  channel.publish(message.topic, message.routingKey, message.body, {
    mandatory: true,
    persistent: true,
    messageId: message.messageId,
    timestamp: message.timestampSeconds,
    type: message.type,
    appId: message.producerGroup,
    contentType: message.contentType,
    ...(message.replyTo === undefined ? {} : { replyTo: message.replyTo }),
    headers: message.headers,
  });
  await written();
  return Buffer.concat(pieces).toString('hex');
}

function bytesOf(message: Outgoing): string {
  const frames = new PublishFrames();
  expect(frames.add(1, message)).toBe(true);
  return Buffer.concat(frames.take()).toString('hex');
}

describe('an ordinary message has the bytes that the client library gives it', () => {
  const headers = (values: Outgoing['headers']) => outgoing('user', 'm-1', { headers: values });
  const cases: [what: string, Outgoing][] = [
    ['as the engine makes it', outgoing('user', 'm-1')],
    ['a queue for receipts', outgoing('user', 'm-1', { replyTo: 'escrow:receipts:x' })],
    ['no body', outgoing('user', 'm-1', { body: Buffer.alloc(0) })],
    ['no routing key', outgoing('user', 'm-1', { routingKey: '' })],
    ['no headers', headers({})],
    ['texts beyond ASCII', headers({ 'x-ü': 'ü€😀', empty: '', half: '\ud83d' })],
    ['truth', headers({ yes: true, no: false })],
    ['small numbers', headers({ a: 0, b: -0, c: 1, d: 127, e: -128 })],
    ['16 bits', headers({ a: 128, b: -129, c: 32_767, d: -32_768 })],
    ['32 bits', headers({ a: 32_768, b: -32_769, c: 2 ** 31 - 1, d: -(2 ** 31) })],
    ['64 bits', headers({ a: 2 ** 31, b: -(2 ** 31) - 1, c: 2 ** 53 - 1, d: -(2 ** 53) + 1 })],
    [
      'more of 64 bits',
      headers({ a: 2 ** 32, b: -(2 ** 32), c: -(2 ** 33) - 5, d: 1_790_000_000_123 }),
    ],
    ['fractions', headers({ a: 0.1, b: -1.5, c: 1e-300 })],
    ['times after 2038', outgoing('user', 'm-1', { timestampSeconds: 5_000_000_000 })],
    [
      'a message that is nearly too large',
      outgoing('user', 'm-1', { body: Buffer.alloc(3_700, 'x') }),
    ],
  ];
  test.each(cases)('%s', async (_what, message) => {
    expect(bytesOf(message)).toBe(await bytesOfLibrary(message));
  });
});

describe('what is left to the client library', () => {
  const cases: [what: string, Partial<Outgoing>][] = [
    ['a large body', { body: Buffer.alloc(4_096) }],
    ['large headers', { headers: { a: 'x'.repeat(4_096) } }],
    ['a content type that may be too long', { contentType: 'x'.repeat(86) }],
    ['a header name that may be too long', { headers: { ['n'.repeat(86)]: 1 } }],
    ['a number that is not exact', { headers: { a: 2 ** 53 } }],
    ['no number', { headers: { a: Number.NaN } }],
    ['endless', { headers: { a: Number.POSITIVE_INFINITY } }],
  ];
  test.each(cases)('%s', (_what, changes) => {
    const frames = new PublishFrames();
    expect(frames.add(1, outgoing('user', 'm-1', changes))).toBe(false);
    expect(frames.take()).toEqual([]);
  });
});

test('what does not fit into one piece comes in several, in order, and is never written over', () => {
  const frames = new PublishFrames();
  const messages = Array.from({ length: 100 }, (_, n) =>
    outgoing('user', `m-${n}`, { body: Buffer.alloc(1_000, `${n % 10}`) }),
  );
  for (const message of messages) expect(frames.add(1, message)).toBe(true);
  const taken = frames.take();
  expect(taken.length).toBeGreaterThan(1);
  for (const message of messages) frames.add(1, message);
  const expected = messages.map(bytesOf).join('');
  expect(Buffer.concat(taken).toString('hex')).toBe(expected);
  expect(Buffer.concat(frames.take()).toString('hex')).toBe(expected);
  expect(frames.take()).toEqual([]);
});

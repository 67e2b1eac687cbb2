import { expect, test } from '@jest/globals';
import type { ConfirmChannel } from 'amqplib';
import type { Outgoing } from '../../broker/src/domain/outgoing.js';
import { publishingOn } from '../../broker/src/rabbit/burst-publishing.js';
import { channelOnWire, written } from '../support/amqp-wire.js';
import { outgoing } from '../support/rabbit.js';

const large = { body: Buffer.alloc(10_000, 'x') };

/** Publishes messages of these names; what became of each, by its name. */
function publisherOn(channel: ConfirmChannel) {
  const publishOn = publishingOn(channel);
  const confirmed = new Map<string, unknown>();
  return {
    confirmed,
    publish(messageId: string, changes: Partial<Outgoing> = {}) {
      const message = outgoing('user', messageId, changes);
      publishOn(message, (error) => confirmed.set(messageId, error));
    },
  };
}

test('what is published in one turn is written in one piece', async () => {
  const { channel, pieces, frames } = channelOnWire();
  const { publish } = publisherOn(channel);
  for (let n = 0; n < 50; n++) publish(`m-${n}`);
  await written();
  expect(pieces).toHaveLength(1);
  const ids = frames().flatMap(({ fields }) => (fields?.messageId ? [fields.messageId] : []));
  expect(ids).toEqual(Array.from({ length: 50 }, (_, n) => `m-${n}`));
  publish('later');
  await written();
  expect(pieces).toHaveLength(2);
});

test('ordinary messages and others keep their order, and each gets its own confirm', async () => {
  const { channel, frames, confirm } = channelOnWire();
  const { publish, confirmed } = publisherOn(channel);
  publish('m-1');
  publish('m-2', large);
  publish('m-3');
  publish('m-4', large);
  publish('m-5');
  await written();
  const ids = frames().flatMap(({ fields }) => (fields?.messageId ? [fields.messageId] : []));
  expect(ids).toEqual(['m-1', 'm-2', 'm-3', 'm-4', 'm-5']);
  confirm(2);
  expect([...confirmed]).toEqual([['m-2', null]]);
  confirm(4, true);
  expect([...confirmed.keys()]).toEqual(['m-2', 'm-1', 'm-3', 'm-4']);
  confirm(5);
  expect(confirmed.get('m-5')).toBe(null);
});

test('what the client library refuses leaves no gap in the confirms', async () => {
  const { channel, confirm } = channelOnWire();
  const { publish, confirmed } = publisherOn(channel);
  publish('m-1');
  expect(() => publish('m-2', { topic: 't'.repeat(300) })).toThrow(TypeError);
  publish('m-3');
  await written();
  confirm(2);
  expect([...confirmed]).toEqual([['m-3', null]]);
});

test('a channel that closes before the write writes nothing, and nothing is confirmed', async () => {
  const { channel, pieces, errors, close } = channelOnWire();
  const { publish, confirmed } = publisherOn(channel);
  publish('m-1');
  close();
  await written();
  expect(pieces).toEqual([]);
  expect(errors).toEqual([]);
  expect(confirmed.get('m-1')).toBeInstanceOf(Error);
  expect(() => publish('m-2')).toThrow('Channel closed');
});

test('a client library that looks different inside publishes one by one', async () => {
  const { channel, pieces, confirm } = channelOnWire();
  const { publish, confirmed } = publisherOn(
    new Proxy(channel, { has: (target, key) => key !== 'pushConfirmCallback' && key in target }),
  );
  publish('m-1');
  publish('m-2');
  await written();
  expect(pieces).toHaveLength(2);
  confirm(2, true);
  expect([...confirmed.keys()]).toEqual(['m-1', 'm-2']);
});

test('U11: headers that no frame holds are refused before they cost everybody the connection', async () => {
  const { channel, frames } = channelOnWire();
  const { publish, confirmed } = publisherOn(channel);
  Object.assign(channel.connection, { frameMax: 4_096 });
  publish('m-1');
  const headers = {
    a: 'x'.repeat(1_024),
    b: 'x'.repeat(1_024),
    c: 'x'.repeat(1_024),
    d: 'x'.repeat(1_024),
  };
  expect(() => publish('m-2', { ...large, headers })).toThrow(/frame_max is 4096/);
  publish('m-3', large);
  await written();
  const ids = frames().flatMap(({ fields }) => (fields?.messageId ? [fields.messageId] : []));
  expect(ids).toEqual(['m-1', 'm-3']);
  expect(confirmed.size).toBe(0);
});

import { Writable } from 'node:stream';
import type { ConfirmChannel } from 'amqplib';
import type { Outgoing } from '../domain/outgoing.js';
import { PublishFrames } from './publish-frames.js';

/**
 * Publishes on one channel, mandatory and persistent. `confirmed` is called with null when RabbitMQ
 * has taken the message, with an error when it has not or the channel closed first.
 * @throws what the client library throws, and then nothing was published
 */
export type PublishOn = (message: Outgoing, confirmed: (error: unknown) => void) => void;

/**
 * Publishes in bursts: what is published in one turn of the event loop is written in one piece.
 * Through the client library's own `publish` every message is a system call here and a read at
 * RabbitMQ. Measured at 256 at a time: 28 µs of CPU per message here instead of 45 µs, frames of our
 * own included; at RabbitMQ 91 µs instead of 116 µs in bursts of 150, 105 µs instead of 111 µs in
 * bursts of 50.
 *
 * This reaches into the client library, which has no such thing: it writes where the library
 * writes this channel's frames, and tells it of each confirm to expect, in the same order. A
 * library that looks different inside is used by its own `publish` alone, and so is everything
 * that `PublishFrames` does not take.
 */
export function publishingOn(channel: ConfirmChannel): PublishOn {
  const publishSingly: PublishOn = (message, confirmed) => {
    requireHeaderFrame(message, frameMaxOf(channel));
    channel.publish(
      message.topic,
      message.routingKey,
      message.body,
      {
        mandatory: true,
        persistent: true,
        messageId: message.messageId,
        timestamp: message.timestampSeconds,
        type: message.type,
        appId: message.producerGroup,
        contentType: message.contentType,
        ...(message.replyTo === undefined ? {} : { replyTo: message.replyTo }),
        headers: message.headers,
      },
      confirmed,
    );
  };
  const inside = lookInside(channel);
  if (inside === undefined) return publishSingly;

  const { number, wire, expectConfirm } = inside;
  const frames = new PublishFrames();
  let scheduled = false;

  function flush(): void {
    scheduled = false;
    const pieces = frames.take();
    // A channel that has closed meanwhile has told the outcome of everything on it.
    if (!wire.writable) return;
    for (const piece of pieces) wire.write(piece);
  }

  return (message, confirmed) => {
    if (!wire.writable || !frames.add(number, message)) {
      // Behind those before it: RabbitMQ counts, and a confirm has no other name than its number.
      flush();
      publishSingly(message, confirmed);
      return;
    }
    expectConfirm(confirmed);
    if (scheduled) return;
    scheduled = true;
    process.nextTick(flush);
  };
}

/** As agreed with RabbitMQ, where 0 is no limit; none either where the library looks different inside. */
function frameMaxOf(channel: ConfirmChannel): number {
  const connection: unknown = 'connection' in channel ? channel.connection : undefined;
  const isObject = typeof connection === 'object' && connection !== null;
  const frameMax = isObject && 'frameMax' in connection ? connection.frameMax : undefined;
  return typeof frameMax === 'number' && frameMax > 0 ? frameMax : Number.POSITIVE_INFINITY;
}

/** The fixed parts of a header frame: its own, and the lengths and flags of properties. */
const FRAME_FIXED_BYTES = 64;
/** The lengths and types of a header, or a number. */
const HEADER_FIXED_BYTES = 16;

/**
 * Properties and headers are one frame, which nobody may split. The library writes one of any size, and
 * RabbitMQ closes the connection over it, with what all others have in flight.
 *
 * @throws Error for a message that would be refused again and again
 */
function requireHeaderFrame(message: Outgoing, frameMax: number): void {
  const { headers, contentType, messageId, type, producerGroup, replyTo = '' } = message;
  let bytes = FRAME_FIXED_BYTES;
  for (const text of [contentType, messageId, type, producerGroup, replyTo]) {
    bytes += Buffer.byteLength(text);
  }
  for (const [name, value] of Object.entries(headers)) {
    bytes += HEADER_FIXED_BYTES + Buffer.byteLength(name);
    if (typeof value === 'string') bytes += Buffer.byteLength(value);
  }
  if (bytes <= frameMax) return;
  throw new Error(
    `its headers have ${bytes} bytes with ours, and RabbitMQ's frame_max is ${frameMax}; raise that, or send fewer`,
  );
}

interface Inside {
  /** The channel's number on its connection. */
  number: number;
  /** Where the library writes the channel's frames, in order. */
  wire: Writable;
  /** The next message on the channel has this callback. */
  expectConfirm(confirmed: (error: unknown) => void): void;
}

/** As amqplib 2.3 has it; undefined when it looks different. */
function lookInside(channel: ConfirmChannel): Inside | undefined {
  if (!('ch' in channel) || typeof channel.ch !== 'number') return undefined;
  if (!('pushConfirmCallback' in channel)) return undefined;
  const { ch: number, connection, pushConfirmCallback: expect } = channel;
  if (typeof expect !== 'function' || !('channels' in connection)) return undefined;
  const { channels } = connection;
  if (!Array.isArray(channels)) return undefined;
  const wire: unknown = channels[number]?.buffer;
  if (!(wire instanceof Writable)) return undefined;
  return { number, wire, expectConfirm: (confirmed) => expect.call(channel, confirmed) };
}

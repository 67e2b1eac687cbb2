import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Duplex } from 'node:stream';
import type { ConfirmChannel } from 'amqplib';

/** The client library from inside, where its package lets nobody else look. */
const require = createRequire(import.meta.url);
const library = join(dirname(require.resolve('amqplib')), 'lib');
const { Connection } = require(join(library, 'connection.js'));
const { ConfirmChannel: LibraryChannel } = require(join(library, 'channel_model.js'));
const { BasicAck } = require(join(library, 'defs.js'));
const { parseFrame, decodeFrame } = require(join(library, 'frame.js'));

interface Frame {
  channel: number;
  fields?: Record<string, unknown>;
  content?: Buffer;
}

/** A confirm channel of the client library that is open, and the wire behind it: no server. */
export function channelOnWire() {
  const pieces: Buffer[] = [];
  const wire = new Duplex({
    read() {},
    write(piece, _encoding, done) {
      pieces.push(piece);
      done();
    },
  });
  const connection = new Connection(wire);
  connection.channelMax = 10;
  const channel = new LibraryChannel(connection).allocate();
  const errors: unknown[] = [];
  connection.channels[channel.ch].buffer.on('error', (error: unknown) => errors.push(error));
  return {
    channel: channel as ConfirmChannel,
    /** What the library's buffer of the channel took ill. */
    errors,
    /** What was written to the socket, write by write. */
    pieces,
    frames(): Frame[] {
      const frames: Frame[] = [];
      let rest = Buffer.concat(pieces);
      while (rest.length > 0) {
        const frame = parseFrame(rest, 0);
        frames.push(decodeFrame(frame));
        rest = frame.rest;
      }
      return frames;
    },
    confirm(deliveryTag: number, multiple = false) {
      channel.accept({ id: BasicAck, fields: { deliveryTag, multiple } });
    },
    /** As when the server closes it. */
    close() {
      channel.toClosed();
    },
  };
}

/** The client library writes when it has read what there is. */
export async function written(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise(setImmediate);
}

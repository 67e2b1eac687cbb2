import type { Outgoing } from '../domain/outgoing.js';

/*
 * Messages as AMQP 0-9-1 has them on the wire, many of them in one piece of memory:
 *
 *   method frame   1, channel, size, basic.publish: exchange, routing key, mandatory       end
 *   header frame   2, channel, size, basic, size of the body, which properties, properties end
 *   body frame     3, channel, size, body                                                  end
 *
 * Only ordinary messages: small ones, with nothing in them that needs a second thought. Any other
 * is the client library's, with its splitting of bodies, its checks and its errors.
 *
 * Measured: 1.7 µs of CPU for a message of 250 bytes with six headers, against 11.6 µs in the client
 * library (2.3.1), which makes a buffer for each frame and copies them together.
 */

/** The smallest limit on frames that AMQP allows: nothing here is ever split. */
const MESSAGE_BYTES_MAX = 4_096;

/** About a hundred messages of 600 bytes: what one flush of verdicts releases. */
const SLAB_BYTES = 64 * 1024;

const BASIC = 60;
const PUBLISH = 40;
const FRAME_END = 0xce;
const MANDATORY = 0b01;
const PERSISTENT = 2;
/** The flag of each property; they are written in the order of their flags. */
const CONTENT_TYPE = 1 << 15;
const HEADERS = 1 << 13;
const DELIVERY_MODE = 1 << 12;
const REPLY_TO = 1 << 9;
const MESSAGE_ID = 1 << 7;
const TIMESTAMP = 1 << 6;
const TYPE = 1 << 5;
const APP_ID = 1 << 3;
const ALWAYS_THERE =
  CONTENT_TYPE | HEADERS | DELIVERY_MODE | MESSAGE_ID | TIMESTAMP | TYPE | APP_ID;

/** More than all that has a fixed length: frames, numbers, flags, the lengths of strings. */
const FIXED_BYTES = 100;
/** The length of a header's name, the type of its value, and a number or the length of a text. */
const HEADER_FIXED_BYTES = 10;
/** A UTF-16 code unit is at most that long in UTF-8. */
const CHAR_BYTES_MAX = 3;
/** AMQP's short strings have at most 255 bytes. */
const SHORT_STRING_CHARS_MAX = 255 / CHAR_BYTES_MAX;

/** Field types of a table. */
const TEXT = 'S'.charCodeAt(0);
const BOOLEAN = 't'.charCodeAt(0);
const INT8 = 'b'.charCodeAt(0);
const INT16 = 's'.charCodeAt(0);
const INT32 = 'I'.charCodeAt(0);
const INT64 = 'l'.charCodeAt(0);
const DOUBLE = 'd'.charCodeAt(0);

const TWO_TO_32 = 2 ** 32;

/** Collects messages as frames until they are taken, in one piece or a few. */
export class PublishFrames {
  #bytes = Buffer.allocUnsafe(SLAB_BYTES);
  #begin = 0;
  #end = 0;
  readonly #full: Buffer[] = [];

  /** Adds one message; false, with nothing added, when it is not an ordinary one. */
  add(channel: number, message: Outgoing): boolean {
    const bytesMax = bytesMaxOf(message);
    if (bytesMax > MESSAGE_BYTES_MAX) return false;
    // From here on there is room for every field, and none needs to be checked.
    if (this.#end + bytesMax > this.#bytes.length) this.#nextSlab();
    this.#method(channel, message);
    this.#header(channel, message);
    this.#body(channel, message.body);
    return true;
  }

  /** What was added since the last time, to be written in this order. */
  take(): Buffer[] {
    const taken = this.#full.splice(0);
    if (this.#end > this.#begin) taken.push(this.#bytes.subarray(this.#begin, this.#end));
    this.#begin = this.#end;
    return taken;
  }

  #nextSlab(): void {
    if (this.#end > this.#begin) this.#full.push(this.#bytes.subarray(this.#begin, this.#end));
    // Never written over: the socket may not have sent the last one yet.
    this.#bytes = Buffer.allocUnsafe(SLAB_BYTES);
    this.#begin = 0;
    this.#end = 0;
  }

  #method(channel: number, { topic, routingKey }: Outgoing): void {
    const begin = this.#beginFrame(1, channel);
    this.#uint16(BASIC);
    this.#uint16(PUBLISH);
    this.#uint16(0);
    this.#shortString(topic);
    this.#shortString(routingKey);
    this.#uint8(MANDATORY);
    this.#endFrame(begin);
  }

  #header(channel: number, message: Outgoing): void {
    const { replyTo } = message;
    const begin = this.#beginFrame(2, channel);
    this.#uint16(BASIC);
    this.#uint16(0);
    this.#uint64(message.body.length);
    this.#uint16(replyTo === undefined ? ALWAYS_THERE : ALWAYS_THERE | REPLY_TO);
    this.#shortString(message.contentType);
    this.#table(message.headers);
    this.#uint8(PERSISTENT);
    if (replyTo !== undefined) this.#shortString(replyTo);
    this.#shortString(message.messageId);
    this.#uint64(message.timestampSeconds);
    this.#shortString(message.type);
    this.#shortString(message.producerGroup);
    this.#endFrame(begin);
  }

  #body(channel: number, body: Buffer): void {
    if (body.length === 0) return;
    const begin = this.#beginFrame(3, channel);
    this.#end += body.copy(this.#bytes, this.#end);
    this.#endFrame(begin);
  }

  #beginFrame(type: number, channel: number): number {
    this.#uint8(type);
    this.#uint16(channel);
    this.#uint32(0);
    return this.#end;
  }

  #endFrame(begin: number): void {
    writeUint32(this.#bytes, begin - 4, this.#end - begin);
    this.#uint8(FRAME_END);
  }

  #table(headers: Outgoing['headers']): void {
    this.#uint32(0);
    const begin = this.#end;
    for (const name in headers) {
      const value = headers[name];
      if (value === undefined) continue;
      this.#shortString(name);
      if (typeof value === 'string') this.#longString(value);
      else if (typeof value === 'number') this.#number(value);
      else {
        this.#uint8(BOOLEAN);
        this.#uint8(value ? 1 : 0);
      }
    }
    writeUint32(this.#bytes, begin - 4, this.#end - begin);
  }

  #longString(value: string): void {
    this.#uint8(TEXT);
    this.#uint32(0);
    const length = this.#bytes.write(value, this.#end);
    writeUint32(this.#bytes, this.#end - 4, length);
    this.#end += length;
  }

  /** In the smallest type that holds it, as the client library does: AMQP has no plain number. */
  #number(value: number): void {
    if (!Number.isInteger(value)) {
      this.#uint8(DOUBLE);
      this.#end = this.#bytes.writeDoubleBE(value, this.#end);
    } else if (value >= -0x80 && value < 0x80) {
      this.#uint8(INT8);
      this.#uint8(value);
    } else if (value >= -0x8000 && value < 0x8000) {
      this.#uint8(INT16);
      this.#uint16(value);
    } else if (value >= -0x8000_0000 && value < 0x8000_0000) {
      this.#uint8(INT32);
      this.#uint32(value);
    } else {
      this.#uint8(INT64);
      this.#uint64(value);
    }
  }

  #shortString(value: string): void {
    const length = this.#bytes.write(value, this.#end + 1);
    this.#uint8(length);
    this.#end += length;
  }

  #uint8(value: number): void {
    this.#bytes[this.#end++] = value;
  }

  #uint16(value: number): void {
    this.#bytes[this.#end++] = value >>> 8;
    this.#bytes[this.#end++] = value;
  }

  #uint32(value: number): void {
    writeUint32(this.#bytes, this.#end, value);
    this.#end += 4;
  }

  /** Also of a negative number, in two's complement. */
  #uint64(value: number): void {
    this.#uint32(Math.floor(value / TWO_TO_32));
    this.#uint32(value % TWO_TO_32);
  }
}

/** Node's own checks the type, the range and the room of each number. */
function writeUint32(bytes: Buffer, at: number, value: number): void {
  bytes[at] = value >>> 24;
  bytes[at + 1] = value >>> 16;
  bytes[at + 2] = value >>> 8;
  bytes[at + 3] = value;
}

/** More than the message takes; without limit when it is not an ordinary one. */
function bytesMaxOf(message: Outgoing): number {
  const { topic, routingKey, contentType, replyTo = '', messageId, type, producerGroup } = message;
  let bytes = FIXED_BYTES + message.body.length;
  for (const text of [topic, routingKey, contentType, replyTo, messageId, type, producerGroup]) {
    if (text.length > SHORT_STRING_CHARS_MAX) return Number.POSITIVE_INFINITY;
    bytes += text.length * CHAR_BYTES_MAX;
  }
  for (const name in message.headers) {
    const value = message.headers[name];
    if (name.length > SHORT_STRING_CHARS_MAX) return Number.POSITIVE_INFINITY;
    if (typeof value === 'number' && !isOrdinaryNumber(value)) return Number.POSITIVE_INFINITY;
    const chars = name.length + (typeof value === 'string' ? value.length : 0);
    bytes += HEADER_FIXED_BYTES + chars * CHAR_BYTES_MAX;
  }
  return bytes;
}

/** A whole number that is exact, or one with a fraction: others have no obvious type in AMQP. */
const isOrdinaryNumber = (value: number) =>
  Number.isSafeInteger(value) || (Number.isFinite(value) && !Number.isInteger(value));

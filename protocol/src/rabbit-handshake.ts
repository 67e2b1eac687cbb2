import type { RabbitLogin } from './rabbit-login.js';

/*
 * The client library says "Expected ConnectionOpenOk; got <ConnectionClose channel:0>" where
 * RabbitMQ gave a code and a sentence, and "Frame size 1345270062 exceeds …" where a web server
 * answered. So after a failed handshake the way is gone once more by hand, and what is said is
 * listened to:
 *
 *   ─► header         anything but a frame: no RabbitMQ, or TLS
 *   ◄─ start ─► start-ok
 *   ◄─ tune, or close: user or password
 *   ─► tune-ok, open
 *   ◄─ open-ok, or close: virtual host, limits, settings
 *
 * Pure: bytes in, bytes out. Nothing is kept of it but the answer.
 */
/** Who answered a handshake, and how. */
export type HandshakeAnswer =
  | HandshakeAccepted
  | HandshakeClosed
  | HandshakeForeign
  | HandshakeSilent;

/** By now it would succeed. */
interface HandshakeAccepted {
  kind: 'accepted';
}

/** RabbitMQ refused it, in its own words. */
interface HandshakeClosed {
  kind: 'closed';
  /** RabbitMQ's reply code, like a status of HTTP: 403, 530. */
  code: number;
  /** RabbitMQ's own sentence. */
  text: string;
  /** Whether it had accepted user and password by then. */
  after: 'login' | 'open';
}

/** Somebody else is there. */
interface HandshakeForeign {
  kind: 'foreign';
  /** What it looks like. */
  what: 'http' | 'tls' | 'amqp' | 'other';
  /** What they said first. */
  said: string;
}

/** The connection ended, or nothing came, before anything could be told. */
interface HandshakeSilent {
  kind: 'silent';
  /** How far it had come. */
  after: 'hello' | 'login' | 'open';
  /** Why nothing more came. */
  reason: string;
}

/** What came in answer to bytes, and what is to be sent on. */
interface HandshakeStep {
  /** To be sent, in this order. */
  send: Uint8Array[];
  /** There when it is over. */
  answer?: HandshakeAnswer;
}

/** One handshake, without the connection under it. */
export interface Handshake {
  /** What to send first. */
  readonly hello: Uint8Array;
  /** What to send next, and the answer once there is one. */
  receive(bytes: Uint8Array): HandshakeStep;
  /** When the connection ends before there was an answer, or the time is over. */
  end(reason: string): HandshakeAnswer;
}

const HEADER = Uint8Array.of(0x41, 0x4d, 0x51, 0x50, 0, 0, 9, 1);
const METHOD_FRAME = 1;
const FRAME_END = 0xce;
/** Type, channel and size before a frame's payload, and the end mark behind it. */
const FRAME_HEAD_BYTES = 7;
/** Of the handshake's frames: RabbitMQ's start has less than a kilobyte. */
const FRAME_BYTES_MAX = 131_072;
/** What is shown of somebody else's greeting. */
const SAID_CHARS_MAX = 40;

/** Class and method, as one number. */
const METHODS = {
  start: 0x000a_000a,
  startOk: 0x000a_000b,
  tune: 0x000a_001e,
  tuneOk: 0x000a_001f,
  open: 0x000a_0028,
  openOk: 0x000a_0029,
  close: 0x000a_0032,
} as const;

/** Makes a handshake; nothing is sent by it. */
export function createHandshake(login: RabbitLogin): Handshake {
  let unread = new Uint8Array(0);
  let after: 'hello' | 'login' | 'open' = 'hello';

  function step(payload: Uint8Array): HandshakeStep {
    const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
    switch (view.getUint32(0)) {
      case METHODS.start:
        after = 'login';
        return { send: [startOk(login)] };
      case METHODS.tune:
        after = 'open';
        return { send: [tuneOk(view, login), open(login)] };
      case METHODS.openOk:
        return { send: [], answer: { kind: 'accepted' } };
      case METHODS.close: {
        const text = textOf(payload.subarray(7, 7 + view.getUint8(6)));
        const where = after === 'open' ? 'open' : 'login';
        return {
          send: [],
          answer: { kind: 'closed', code: view.getUint16(4), text, after: where },
        };
      }
      default:
        return { send: [], answer: foreign(payload) };
    }
  }

  return {
    hello: HEADER,
    receive(bytes) {
      unread = joined(unread, bytes);
      const sent: Uint8Array[] = [];
      for (;;) {
        if (unread.length > 0 && unread[0] !== METHOD_FRAME) {
          return { send: sent, answer: foreign(unread) };
        }
        const frame = frameIn(unread);
        if (frame === 'unfinished') return { send: sent };
        if (frame === 'none') return { send: sent, answer: foreign(unread) };
        unread = unread.slice(FRAME_HEAD_BYTES + frame.length + 1);
        const { send, answer } = step(frame);
        sent.push(...send);
        if (answer !== undefined) return { send: sent, answer };
      }
    },
    end(reason) {
      return { kind: 'silent', after, reason };
    },
  };
}

/** The payload of the first frame, which is long enough to name its method. */
function frameIn(bytes: Uint8Array): Uint8Array | 'unfinished' | 'none' {
  if (bytes.length < FRAME_HEAD_BYTES) return 'unfinished';
  const size = new DataView(bytes.buffer, bytes.byteOffset).getUint32(3);
  if (size < 4 || size > FRAME_BYTES_MAX) return 'none';
  if (bytes.length < FRAME_HEAD_BYTES + size + 1) return 'unfinished';
  if (bytes[FRAME_HEAD_BYTES + size] !== FRAME_END) return 'none';
  return bytes.slice(FRAME_HEAD_BYTES, FRAME_HEAD_BYTES + size);
}

function foreign(bytes: Uint8Array): HandshakeAnswer {
  const said = textOf(bytes.subarray(0, SAID_CHARS_MAX));
  const what = said.startsWith('HTTP/')
    ? 'http'
    : said.startsWith('AMQP')
      ? 'amqp'
      : (bytes[0] === 0x15 || bytes[0] === 0x16) && bytes[1] === 3
        ? 'tls'
        : 'other';
  return { kind: 'foreign', what, said };
}

/** The first line, with a dot for what can't be shown. */
function textOf(bytes: Uint8Array): string {
  const [line = ''] = new TextDecoder().decode(bytes).split(/[\r\n]/, 1);
  return line.replace(/\p{C}/gu, '.');
}

function startOk({ username, password }: RabbitLogin): Uint8Array {
  const response = new TextEncoder().encode(`\0${username}\0${password}`);
  // An empty table of client properties, the mechanism, the response and the language.
  return method(METHODS.startOk, [
    uint32(0),
    short('PLAIN'),
    uint32(response.length),
    response,
    short('en_US'),
  ]);
}

/** Channels and heartbeat as proposed; the frame size is the smaller wish, as the library has it. */
function tuneOk(tune: DataView, { frameBytesMax }: RabbitLogin): Uint8Array {
  const proposed = tune.getUint32(6);
  const isLimited = proposed !== 0 && frameBytesMax !== 0;
  const frameBytes = (isLimited ? Math.min : Math.max)(proposed, frameBytesMax);
  return method(METHODS.tuneOk, [uint16(tune.getUint16(4)), uint32(frameBytes), uint16(0)]);
}

const open = ({ vhost }: RabbitLogin): Uint8Array =>
  method(METHODS.open, [short(vhost), short(''), Uint8Array.of(0)]);

function method(name: number, args: Uint8Array[]): Uint8Array {
  const payload = joined(uint32(name), ...args);
  const head = joined(Uint8Array.of(METHOD_FRAME, 0, 0), uint32(payload.length));
  return joined(head, payload, Uint8Array.of(FRAME_END));
}

const uint16 = (value: number) => Uint8Array.of(value >> 8, value & 0xff);
const uint32 = (value: number) =>
  Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff);

/** A short string; what does not fit in 255 bytes is cut, and refused by whoever gets it. */
function short(text: string): Uint8Array {
  const bytes = new TextEncoder().encode(text).slice(0, 255);
  return joined(Uint8Array.of(bytes.length), bytes);
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

import { createHash } from 'node:crypto';
import type { MessageInput } from '@escrowmq/producer';
import { between, pick, type Random, randomOf } from '../random.js';
import { ROUTING_KEY, TOPIC } from './settings.js';

/*
 * What a producer does, as a pure function of the seed, the producer and the number of the job: so
 * the same seed is the same work, and a producer that was killed knows again what it was sending.
 */

export type JobKind =
  /** `transaction` of the SDK. */
  | 'transaction'
  /** The same, with data that the callback makes. */
  | 'dataAtCommit'
  /** The caller begins and commits by itself. */
  | 'enlist'
  /** The callback throws in the end: nothing may become of it. */
  | 'rollback'
  /** The callback is still at work when the broker asks. */
  | 'slow'
  /** Prepared, and then forgotten: a producer that died before its local transaction. */
  | 'abandon'
  /** Hangs on no local transaction; repeated until the broker has it. */
  | 'send';

/** Of a hundred jobs. */
const SHARES: Record<JobKind, number> = {
  transaction: 56,
  dataAtCommit: 10,
  enlist: 10,
  rollback: 8,
  slow: 3,
  abandon: 3,
  send: 10,
};
const KINDS = Object.entries(SHARES).flatMap(([kind, share]) =>
  Array<JobKind>(share).fill(kind as JobKind),
);

/** Most transactions of real services have one message; the state machine has a mask for 32. */
const MESSAGES_MAX = 3;
/** Small as messages are, and some beyond a single packet. */
const TEXT_CHARS_MAX = 400;
const LARGE_TEXT_CHARS_MAX = 20_000;
const LARGE_SHARE = 0.02;
const BINARY_SHARE = 0.1;
/** What mangles text on its way: quotes, backslashes, control characters, four-byte characters. */
const ALPHABET = [...`abcdefghijklmnopqrstuvwxyz0123456789 '"\\/%_\n\té´ß漢字🙂\u0001`];

export interface Job {
  number: number;
  kind: JobKind;
  bodies: Body[];
  /** How long the callback is at work, in ms. */
  workMs: number;
}

/** One message's content, and the SHA-256 of the bytes that must arrive. */
export type Body = { sha256: string } & ({ data: unknown } | { dataBase64: string });

export function jobOf(seed: number, producer: string, number: number): Job {
  const random = randomOf(seed, producer, number);
  const kind = pick(random, KINDS);
  const count = kind === 'send' || kind === 'dataAtCommit' ? 1 : between(random, 1, MESSAGES_MAX);
  const bodies = Array.from({ length: count }, (_, message) => {
    const isBinary = kind !== 'dataAtCommit' && random() < BINARY_SHARE;
    return isBinary
      ? binaryBody(random)
      : bodyOf({ producer, number, message, text: textOf(random) });
  });
  return { number, kind, bodies, workMs: kind === 'slow' ? between(random, 200, 2_500) : 0 };
}

export const bodyOf = (data: unknown): Body => ({ data, sha256: sha256(JSON.stringify(data)) });

function binaryBody(random: Random): Body {
  const bytes = Buffer.from(
    Array.from({ length: between(random, 1, 200) }, () => between(random, 0, 255)),
  );
  return { dataBase64: bytes.toString('base64'), sha256: sha256(bytes) };
}

export const messageOf = (body: Body): MessageInput => ({
  topic: TOPIC,
  routingKey: ROUTING_KEY,
  ...('data' in body
    ? { data: body.data }
    : { dataBase64: body.dataBase64, contentType: 'application/octet-stream' }),
});

export const sha256 = (bytes: string | Buffer): string =>
  createHash('sha256').update(bytes).digest('hex');

function textOf(random: Random): string {
  const max = random() < LARGE_SHARE ? LARGE_TEXT_CHARS_MAX : TEXT_CHARS_MAX;
  return Array.from({ length: between(random, 0, max) }, () => pick(random, ALPHABET)).join('');
}

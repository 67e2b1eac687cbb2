import { z } from 'zod';
import { LIMITS } from './limits.js';
import { named } from './named.js';
import { bytesOf, printable } from './names.js';
import { obstacleIn, shownPath } from './travelling-data.js';

/** A regular expression remembers where it might go back to, and runs out of room for millions. */
const BASE64_CHARS_AT_ONCE = 65_536;
const BASE64_CHARS = /^[A-Za-z0-9+/]*$/;
const BASE64_END = /^(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)$/;

/** Strict: no whitespace, right padding. Buffer.from(…, 'base64') would skip what it does not know. */
function isBase64(value: string): boolean {
  if (value.length === 0) return true;
  if (value.length % 4 !== 0 || !BASE64_END.test(value.slice(-4))) return false;
  for (let start = 0; start < value.length - 4; start += BASE64_CHARS_AT_ONCE) {
    const end = Math.min(start + BASE64_CHARS_AT_ONCE, value.length - 4);
    if (!BASE64_CHARS.test(value.slice(start, end))) return false;
  }
  return true;
}

/** What a message says: `data` (any JSON, sent as `application/json`) or `dataBase64` with its type. */
export const bodyFields = {
  /** Any JSON value. */
  data: z.unknown().optional().describe('Any JSON value'),
  /** Bytes. */
  dataBase64: z
    .string()
    // No request holds more.
    .max(LIMITS.batchBytesMax, { abort: true })
    .refine(isBase64, {
      error: 'must be base64 with padding and without line breaks',
      params: { code: 'INVALID_BASE64' },
    })
    .optional(),
  /** The media type of the bytes. */
  contentType: printable(LIMITS.contentTypeCharsMax)
    .refine((value) => bytesOf(value) <= LIMITS.contentTypeBytesMax, {
      error: `must be at most ${LIMITS.contentTypeBytesMax} bytes of UTF-8 (contentTypeBytesMax)`,
    })
    .optional(),
};

/** What a message says: either `data`, or `dataBase64` with its content type. */
export interface MessageBody {
  /**
   * Any JSON value, sent as `application/json`. It is refused where its JSON would say something else:
   * a Map, a BigInt, NaN, or what is nested deeper than 64. @default none: `dataBase64` has the body
   */
  data?: unknown;
  /** Bytes, in base64 with padding and without line breaks. @default none: `data` is the body */
  dataBase64?: string | undefined;
  /**
   * The media type of `dataBase64`, at most 128 characters; `data` is always `application/json`.
   * @default application/octet-stream
   */
  contentType?: string | undefined;
}

/** What holds for a body wherever it comes from, but for how many of its fields are given. */
export function checkBody(body: MessageBody, context: z.RefinementCtx): void {
  if (body.dataBase64 === undefined && body.contentType !== undefined) {
    context.addIssue({
      code: 'custom',
      path: ['contentType'],
      message: 'goes with dataBase64; data is always application/json',
    });
  }
  if (body.data === undefined) return;
  const obstacle = obstacleIn(body.data);
  if (obstacle === undefined) return;
  const path = ['data', ...shownPath(obstacle)];
  context.addIssue({ code: 'custom', path, message: obstacle.message });
}

/** How many of the two ways to give a body are used. */
export const bodiesGiven = ({ data, dataBase64 }: MessageBody): number =>
  Number(data !== undefined) + Number(dataBase64 !== undefined);

/** The body of one message that prepare left open by `dataAtCommit`. */
export interface MessageData extends MessageBody {
  /** Number of the message in its transaction, from 0. */
  number: number;
}
/** The body of an open message as a caller writes it. */
export type MessageDataInput = MessageData;

/** The body of one message that prepare left open. */
export const MessageData = named<MessageData>()(
  z
    .strictObject({
      number: z
        .int()
        .min(0)
        .max(LIMITS.messagesPerTransactionMax - 1)
        .describe('Number of the message in its transaction, from 0'),
      ...bodyFields,
    })
    .superRefine((given, context) => {
      if (bodiesGiven(given) !== 1) {
        context.addIssue({
          code: 'custom',
          message: 'needs either data or dataBase64, one of the two',
        });
      }
      checkBody(given, context);
    })
    .meta({ id: 'MessageData' }),
);

/** Every message that prepare left open, each exactly once, and none else. */
export const MessageDataList = named<MessageData[]>()(
  z
    .array(MessageData)
    .min(1, { error: 'needs the data of at least one message; without any, leave it out' })
    .refine((given) => given.length <= LIMITS.messagesPerTransactionMax, {
      error: `a transaction has at most ${LIMITS.messagesPerTransactionMax} messages`,
      params: { code: 'TOO_MANY_MESSAGES' },
    })
    .superRefine((given, context) => {
      const seen = new Set<number>();
      given.forEach(({ number }, index) => {
        if (seen.has(number)) {
          context.addIssue({
            code: 'custom',
            path: [index, 'number'],
            message: `message ${number} has its data twice`,
          });
        }
        seen.add(number);
      });
    })
    .describe('The data of every message that prepare left open by dataAtCommit'),
);

import { z } from 'zod';
import { LIMITS } from './limits.js';
import { bytesOf, ConsumerGroupName, printable, RoutingKey, Topic, textOfBytes } from './names.js';
import { obstacleIn, shownPath } from './travelling-data.js';

/**
 * Which AMQP headers a caller may set. Measured on RabbitMQ: `CC` and `BCC` deliver copies into
 * queues of other tenants, `x-…` steers RabbitMQ itself, so a name is allowed by its shape and not
 * refused by a list of known bad ones. `escrow-…` and the trace headers are the broker's own.
 */
const HEADER_NAME = /^[A-Za-z0-9][A-Za-z0-9._:-]*$/;
const RESERVED_HEADER = /^(x-.*|cc|bcc|escrow-.*|traceparent|tracestate|sender-selected.*)$/i;

function headerNameProblem(headerName: string): string | undefined {
  if (headerName.length > LIMITS.headerNameCharsMax) {
    return `header names have at most ${LIMITS.headerNameCharsMax} characters`;
  }
  if (!HEADER_NAME.test(headerName)) {
    return `header ${JSON.stringify(headerName)}: names are letters, digits, dots, dashes, colons and underscores`;
  }
  if (RESERVED_HEADER.test(headerName)) {
    return `header ${headerName} is reserved: CC, BCC, x-*, escrow-* and trace headers are not the caller's to set`;
  }
  return undefined;
}

export const MessageHeaders = z
  .record(
    z.string(),
    z.union([textOfBytes(LIMITS.headerValueBytesMax), z.number(), z.boolean()], {
      error: `header values are strings of well-formed Unicode of at most ${LIMITS.headerValueBytesMax} bytes, finite numbers, or booleans`,
    }),
  )
  .superRefine((headers, context) => {
    const names = Object.keys(headers);
    if (names.length > LIMITS.headersPerMessageMax) {
      context.addIssue({
        code: 'custom',
        message: `at most ${LIMITS.headersPerMessageMax} headers, got ${names.length}`,
      });
    }
    for (const headerName of names) {
      const message = headerNameProblem(headerName);
      if (message === undefined) continue;
      context.addIssue({ code: 'custom', message, params: { code: 'FORBIDDEN_HEADER' } });
    }
    for (const [headerName, value] of Object.entries(headers)) {
      if (typeof value !== 'number' || hasAmqpNumber(value)) continue;
      context.addIssue({
        code: 'custom',
        message: `header ${headerName} is ${value}: a number in a header is a whole one from -2^63 to 2^63, or below 2^50 with a fraction; write others as strings`,
      });
    }
  });

const INT64_END = 2 ** 63;
const FRACTION_END = 2 ** 50;

/**
 * A header's number has a type of its own in AMQP, and clients tell it by the value: what has a
 * fraction is a double, but beyond 2^50 hardly any number has one, and amqplib takes it for a whole
 * one there; whole ones have 64 bits.
 */
function hasAmqpNumber(value: number): boolean {
  if (!Number.isInteger(value)) return Math.abs(value) < FRACTION_END;
  return value >= -INT64_END && value < INT64_END;
}

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
const bodyFields = {
  data: z.unknown().optional().describe('Any JSON value'),
  dataBase64: z
    .string()
    // No request holds more.
    .max(LIMITS.batchBytesMax, { abort: true })
    .refine(isBase64, {
      error: 'must be base64 with padding and without line breaks',
      params: { code: 'INVALID_BASE64' },
    })
    .optional(),
  contentType: printable(LIMITS.contentTypeCharsMax)
    .refine((value) => bytesOf(value) <= LIMITS.contentTypeBytesMax, {
      error: `must be at most ${LIMITS.contentTypeBytesMax} bytes of UTF-8 (contentTypeBytesMax)`,
    })
    .optional(),
};

interface Body {
  data?: unknown;
  dataBase64?: string | undefined;
  contentType?: string | undefined;
}

/** What holds for a body wherever it comes from, but for how many of its fields are given. */
function checkBody(body: Body, context: z.RefinementCtx): void {
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

const bodiesGiven = ({ data, dataBase64 }: Body): number =>
  Number(data !== undefined) + Number(dataBase64 !== undefined);

/**
 * Both prefixes that the AMQP binding of CloudEvents knows. A message has its attributes under one
 * of them alone, so a caller's own would contradict those it asked for.
 */
const CLOUD_EVENTS_HEADER = /^cloudevents[:_]/i;

/** The last millisecond of the year 9999, beyond which a time has no ISO 8601 text. */
const MS_MAX = 253_402_300_799_999;

/** What RFC 3986 lets stand in a URI reference, or in a URI, which begins with its scheme. */
const URI_REFERENCE = /^(?:[\w\-.~:/?#[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+$/;
const URI_SCHEME = /^[A-Za-z][A-Za-z0-9+.-]*:/;

const uriReference = z
  .string()
  .max(LIMITS.cloudEventsAttributeCharsMax)
  .refine((value) => URI_REFERENCE.test(value), {
    error: 'must be a URI reference, such as /accounts or https://example.com/accounts',
  });

/**
 * Asks for CloudEvents attributes as headers. `id`, `time`, `specversion` and the content type are
 * the message's own; what is left out follows from the message too.
 */
export const CloudEvents = z
  .strictObject({
    source: uriReference.optional().describe('Default: /producer-groups/<producer group>'),
    type: printable(LIMITS.cloudEventsAttributeCharsMax)
      .optional()
      .describe('Default: the routing key, or the topic when that is empty'),
    subject: printable(LIMITS.cloudEventsAttributeCharsMax).optional(),
    dataschema: uriReference
      .refine((value) => URI_SCHEME.test(value), {
        error: 'must be a URI with its scheme, such as https://example.com/schemas/user',
      })
      .optional(),
  })
  .meta({ id: 'CloudEvents' });
export type CloudEvents = z.output<typeof CloudEvents>;

/** Consumer groups that somebody waits for, each named once. */
export const ExpectedGroups = z
  .array(ConsumerGroupName)
  .max(LIMITS.expectedGroupsMax)
  .refine((groups) => new Set(groups).size === groups.length, {
    error: 'must not repeat a group',
  });

/**
 * One message of a transaction. Its body is `data` or `dataBase64`, or, in a prepare only, left
 * open by `dataAtCommit`: then the commit supplies it.
 */
export const Message = z
  .strictObject({
    topic: Topic,
    routingKey: RoutingKey.default(''),
    ...bodyFields,
    dataAtCommit: z
      .literal(true)
      .optional()
      .describe('The body comes with the commit; only in a prepare'),
    headers: MessageHeaders.default({}),
    ifUnrouted: z
      .enum(['retry', 'drop'])
      .default('retry')
      .describe('What to do while no queue is bound: try again and park in the end, or drop'),
    deliverAt: z
      .int()
      .min(0)
      .max(MS_MAX)
      .optional()
      .describe("Not before this time, in UTC milliseconds of the store's clock"),
    delayMs: z
      .int()
      .min(1)
      .max(LIMITS.delayMsMax)
      .optional()
      .describe('Not before this long after the commit'),
    orderingKey: printable(LIMITS.orderingKeyCharsMax)
      .optional()
      .describe('Messages of one topic and key are forwarded in the order of their commits'),
    compensate: z
      .literal(true)
      .optional()
      .describe(
        'Calls the producer group for compensation when a group in "expects" gives up on it for good',
      ),
    cloudEvents: CloudEvents.optional(),
    expects: ExpectedGroups.optional().describe(
      'Consumer groups that must consume this message before the transaction is settled; not beside "expects" of the transaction',
    ),
  })
  .superRefine((message, context) => {
    if (bodiesGiven(message) + Number(message.dataAtCommit === true) !== 1) {
      context.addIssue({
        code: 'custom',
        message: 'needs data, dataBase64 or dataAtCommit, one of the three',
      });
    }
    if (message.deliverAt !== undefined && message.delayMs !== undefined) {
      context.addIssue({
        code: 'custom',
        path: ['delayMs'],
        message: 'stands beside deliverAt; give one of the two',
      });
    }
    if (message.cloudEvents !== undefined) {
      for (const headerName of Object.keys(message.headers)) {
        if (!CLOUD_EVENTS_HEADER.test(headerName)) continue;
        context.addIssue({
          code: 'custom',
          path: ['headers'],
          message: `header ${headerName} stands beside cloudEvents, which sets these headers; give one of the two`,
          params: { code: 'FORBIDDEN_HEADER' },
        });
      }
    }
    checkBody(message, context);
  })
  .meta({ id: 'Message' });
/** A message as a caller writes it. */
export type MessageInput = z.input<typeof Message>;
/** A message as parsed: defaults filled in. */
export type Message = z.output<typeof Message>;

export const Messages = z
  .array(Message)
  .min(1, { error: 'needs at least one message' })
  .refine((messages) => messages.length <= LIMITS.messagesPerTransactionMax, {
    error: `a transaction has at most ${LIMITS.messagesPerTransactionMax} messages`,
    params: { code: 'TOO_MANY_MESSAGES' },
  });

/** The body of one message that prepare left open. */
export const MessageData = z
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
  .meta({ id: 'MessageData' });
/** The body of an open message as a caller writes it. */
export type MessageDataInput = z.input<typeof MessageData>;
export type MessageData = z.output<typeof MessageData>;

/** Every message that prepare left open, each exactly once, and none else. */
export const MessageDataList = z
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
  .describe('The data of every message that prepare left open by dataAtCommit');

/** The AMQP message id of message `number` (counted from 0): the same on every repeat. */
export const messageIdOf = (transactionId: string, number: number) => `${transactionId}-${number}`;

const MESSAGE_ID =
  /^([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})-(0|[1-9][0-9]?)$/;

/**
 * The transaction and number behind a message id, or `undefined` for a foreign one. Only what
 * `messageIdOf` makes counts: two texts for one message would get past those who drop repeats.
 */
export function parseMessageId(
  messageId: string,
): { transactionId: string; number: number } | undefined {
  const match = MESSAGE_ID.exec(messageId);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  const number = Number(match[2]);
  return number < LIMITS.messagesPerTransactionMax
    ? { transactionId: match[1], number }
    : undefined;
}

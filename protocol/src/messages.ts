import { z } from 'zod';
import { CloudEvents } from './cloud-events.js';
import { LIMITS } from './limits.js';
import { bodiesGiven, bodyFields, checkBody, type MessageBody } from './message-data.js';
import { MessageHeaders } from './message-headers.js';
import { named } from './named.js';
import { ConsumerGroupName, printable, RoutingKey, Topic } from './names.js';

/**
 * Both prefixes that the AMQP binding of CloudEvents knows. A message has its attributes under one
 * of them alone, so a caller's own would contradict those it asked for.
 */
const CLOUD_EVENTS_HEADER = /^cloudevents[:_]/i;

/** The last millisecond of the year 9999, beyond which a time has no ISO 8601 text. */
const MS_MAX = 253_402_300_799_999;

/** Consumer groups that somebody waits for, each named once. */
export const ExpectedGroups = named<string[]>()(
  z
    .array(ConsumerGroupName)
    .max(LIMITS.expectedGroupsMax)
    .refine((groups) => new Set(groups).size === groups.length, {
      error: 'must not repeat a group',
    }),
);

/** What a message has, whether as a caller writes it or as parsed. */
interface MessageFields extends MessageBody {
  /**
   * The durable topic exchange in RabbitMQ that it goes to: 1 to 100 letters, digits, dots, dashes or
   * underscores.
   */
  topic: string;
  /**
   * The body comes with the commit, in its `messageData`; only in a prepare.
   * @default the body stands here, as `data` or `dataBase64`
   */
  dataAtCommit?: true | undefined;
  /**
   * It does not leave before this time, in UTC milliseconds of the store's clock; not beside `delayMs`.
   * @default none: it leaves with the commit
   */
  deliverAt?: number | undefined;
  /**
   * It does not leave before this many milliseconds after the commit, 1 to 366 days; not beside
   * `deliverAt`. @default none: it leaves with the commit
   */
  delayMs?: number | undefined;
  /**
   * Messages of one topic and key are forwarded in the order of their commits; at most 128 characters.
   * @default none: in no order
   */
  orderingKey?: string | undefined;
  /**
   * Calls the producer group for compensation when a group in `expects` gives up on it for good.
   * @default nobody is called
   */
  compensate?: true | undefined;
  /** Asks for CloudEvents attributes as headers; `{}` takes all from the message. @default none */
  cloudEvents?: CloudEvents | undefined;
  /**
   * Consumer groups that must consume this message before the transaction is settled, at most 16; not
   * beside `expects` of the transaction. @default those of the transaction
   */
  expects?: string[] | undefined;
}

/**
 * A message as a caller writes it. Its body is `data` or `dataBase64`, or, in a prepare only, left open
 * by `dataAtCommit`: then the commit supplies it.
 */
export interface MessageInput extends MessageFields {
  /** What RabbitMQ routes by within the topic, at most 255 bytes of UTF-8. @default '' */
  routingKey?: string | undefined;
  /** The caller's own AMQP headers, at most 32. @default {} */
  headers?: MessageHeaders | undefined;
  /**
   * What to do while no queue is bound for it: `retry` tries again until one is and parks it in the end,
   * `drop` lets it go, on record. @default 'retry'
   */
  ifUnrouted?: 'retry' | 'drop' | undefined;
}

/** A message as parsed: defaults filled in. */
export interface Message extends MessageFields {
  /** What RabbitMQ routes by within the topic; may be empty. */
  routingKey: string;
  /** The caller's own AMQP headers. */
  headers: MessageHeaders;
  /** What to do while no queue is bound for it: try again and park it in the end, or drop it. */
  ifUnrouted: 'retry' | 'drop';
}

/**
 * One message of a transaction. Its body is `data` or `dataBase64`, or, in a prepare only, left
 * open by `dataAtCommit`: then the commit supplies it.
 */
export const Message = named<Message, MessageInput>()(
  z
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
    .meta({ id: 'Message' }),
);

/** The messages of one transaction, 1 to 32; more are refused with TOO_MANY_MESSAGES. */
export const Messages = named<Message[], MessageInput[]>()(
  z
    .array(Message)
    .min(1, { error: 'needs at least one message' })
    .refine((messages) => messages.length <= LIMITS.messagesPerTransactionMax, {
      error: `a transaction has at most ${LIMITS.messagesPerTransactionMax} messages`,
      params: { code: 'TOO_MANY_MESSAGES' },
    }),
);

/** The AMQP message id of message `number` (counted from 0): the same on every repeat. */
export const messageIdOf = (transactionId: string, number: number) => `${transactionId}-${number}`;

const MESSAGE_ID =
  /^([0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12})-(0|[1-9][0-9]?)$/;

/**
 * The transaction and number behind a message id, or `undefined` for a foreign one. Only what
 * `messageIdOf` makes counts: two texts for one message would get past those who drop repeats.
 */
export function parseMessageId(messageId: string):
  | {
      /** The transaction, a UUID of version 7. */
      transactionId: string;
      /** Number of the message in it, from 0. */
      number: number;
    }
  | undefined {
  const match = MESSAGE_ID.exec(messageId);
  if (match?.[1] === undefined || match[2] === undefined) return undefined;
  const number = Number(match[2]);
  return number < LIMITS.messagesPerTransactionMax
    ? { transactionId: match[1], number }
    : undefined;
}

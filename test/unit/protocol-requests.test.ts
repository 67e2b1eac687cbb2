import {
  Announcement,
  BatchRequest,
  BusinessKeyQuery,
  CheckPolicy,
  CommitRequest,
  EscrowError,
  LIMITS,
  messageIdOf,
  PollChecksRequest,
  PrepareRequest,
  ProducerGroupRequest,
  parse,
  parseMessageId,
  ReceiptBatch,
  ResolveRequest,
  SearchQuery,
  SendRequest,
  TransactionId,
  timeOfId,
} from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import type { z } from 'zod';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const MESSAGE = { topic: 'user', data: 1 };
const PREPARE = { producerGroup: 'accounts', messages: [MESSAGE] };

/** The code of the refusal, or `ok`. */
function verdictOn(schema: z.ZodType, value: unknown): string {
  try {
    parse(schema, value, 'the request');
    return 'ok';
  } catch (error) {
    if (error instanceof EscrowError) return error.code;
    throw error;
  }
}

const prepareWith = (changes: object) => ({ ...PREPARE, ...changes });
const messageWith = (changes: object) => prepareWith({ messages: [{ ...MESSAGE, ...changes }] });
const many = <T>(count: number, make: (index: number) => T) =>
  Array.from({ length: count }, (_, index) => make(index));
const text = (length: number) => 'a'.repeat(length);
/** Two bytes of UTF-8 and one character. */
const wide = (count: number) => 'é'.repeat(count);
const nested = (levels: number): unknown => (levels === 0 ? 1 : { a: nested(levels - 1) });

interface Edge {
  limit: string;
  schema: z.ZodType;
  /** A value of this size. */
  of(size: number): unknown;
  max: number;
  code?: string;
}

const ANNOUNCEMENT = {
  topic: 'user',
  routingKeys: ['#'],
  mode: 'each',
  retryDelaysMs: [],
  queues: [],
  host: 'a',
  instance: 'a',
  version: '0.2.0',
  at: 0,
};

const EDGES: Edge[] = [
  {
    limit: 'delayMsMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ messages: [{ ...MESSAGE, delayMs: size }] }),
    max: LIMITS.delayMsMax,
  },
  {
    limit: 'orderingKeyCharsMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ messages: [{ ...MESSAGE, orderingKey: 'k'.repeat(size) }] }),
    max: 128,
  },
  {
    limit: 'cloudEventsAttributeCharsMax',
    schema: PrepareRequest,
    of: (size) =>
      prepareWith({ messages: [{ ...MESSAGE, cloudEvents: { type: 't'.repeat(size) } }] }),
    max: 256,
  },
  {
    limit: 'messagesPerTransactionMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ messages: many(size, () => MESSAGE) }),
    max: 32,
    code: 'TOO_MANY_MESSAGES',
  },
  {
    limit: 'operationsPerBatchMax',
    schema: BatchRequest,
    of: (size) => ({ operations: many(size, () => ({})) }),
    max: LIMITS.operationsPerBatchMax,
  },
  {
    limit: 'topicCharsMax',
    schema: PrepareRequest,
    of: (size) => messageWith({ topic: text(size) }),
    max: LIMITS.topicCharsMax,
    code: 'INVALID_NAME',
  },
  {
    limit: 'groupCharsMax of a producer group',
    schema: PrepareRequest,
    of: (size) => prepareWith({ producerGroup: text(size) }),
    max: LIMITS.groupCharsMax,
    code: 'INVALID_NAME',
  },
  {
    limit: 'groupCharsMax of an expected group',
    schema: PrepareRequest,
    of: (size) => prepareWith({ expects: [text(size)] }),
    max: LIMITS.groupCharsMax,
    code: 'INVALID_NAME',
  },
  {
    limit: 'groupCharsMax of a group that a message expects',
    schema: PrepareRequest,
    of: (size) => messageWith({ expects: [text(size)] }),
    max: LIMITS.groupCharsMax,
    code: 'INVALID_NAME',
  },
  {
    limit: 'expectedGroupsMax of all messages together',
    schema: PrepareRequest,
    of: (size) =>
      prepareWith({
        messages: many(2, (n) => n).map((half) => ({
          ...MESSAGE,
          expects: many(size, (n) => `group-${n}`).filter((_, n) => n % 2 === half),
        })),
      }),
    max: LIMITS.expectedGroupsMax,
    code: 'INVALID_REQUEST',
  },
  {
    limit: 'routingKeyBytesMax, in characters of one byte',
    schema: PrepareRequest,
    of: (size) => messageWith({ routingKey: text(size) }),
    max: 255,
    code: 'INVALID_NAME',
  },
  {
    limit: 'routingKeyBytesMax, in characters of two bytes',
    schema: PrepareRequest,
    of: (size) => messageWith({ routingKey: wide(size) }),
    max: 127,
    code: 'INVALID_NAME',
  },
  {
    limit: 'businessKeyCharsMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ businessKeys: [wide(size)] }),
    max: LIMITS.businessKeyCharsMax,
  },
  {
    limit: 'businessKeysPerTransactionMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ businessKeys: many(size, (n) => `key:${n}`) }),
    max: LIMITS.businessKeysPerTransactionMax,
  },
  {
    limit: 'expectedGroupsMax',
    schema: SendRequest,
    of: (size) => prepareWith({ expects: many(size, (n) => `group-${n}`) }),
    max: LIMITS.expectedGroupsMax,
  },
  {
    limit: 'checkContextBytesMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ checkContext: wide(size) }),
    max: LIMITS.checkContextBytesMax / 2,
  },
  {
    limit: 'checkAfterMsMax',
    schema: PrepareRequest,
    of: (size) => prepareWith({ checkAfterMs: size }),
    max: LIMITS.checkAfterMsMax,
  },
  {
    limit: 'headersPerMessageMax',
    schema: PrepareRequest,
    of: (size) =>
      messageWith({ headers: Object.fromEntries(many(size, (n) => [`header-${n}`, n])) }),
    max: LIMITS.headersPerMessageMax,
  },
  {
    limit: 'headerNameCharsMax',
    schema: PrepareRequest,
    of: (size) => messageWith({ headers: { [text(size)]: 1 } }),
    max: LIMITS.headerNameCharsMax,
    code: 'FORBIDDEN_HEADER',
  },
  {
    limit: 'headerValueBytesMax',
    schema: PrepareRequest,
    of: (size) => messageWith({ headers: { tenant: wide(size) } }),
    max: LIMITS.headerValueBytesMax / 2,
  },
  {
    limit: 'contentTypeCharsMax',
    schema: PrepareRequest,
    of: (size) => messageWith({ data: undefined, dataBase64: '', contentType: text(size) }),
    max: LIMITS.contentTypeCharsMax,
  },
  {
    limit: 'dataDepthMax',
    schema: PrepareRequest,
    of: (size) => messageWith({ data: nested(size) }),
    max: LIMITS.dataDepthMax,
  },
  {
    limit: 'checkUrlsPerGroupMax',
    schema: ProducerGroupRequest,
    of: (size) => ({ checkUrls: many(size, (n) => `http://a.example/${n}`) }),
    max: LIMITS.checkUrlsPerGroupMax,
  },
  {
    limit: 'checkUrlCharsMax',
    schema: ProducerGroupRequest,
    of: (size) => ({ checkUrls: [`http://a/${text(size - 9)}`] }),
    max: LIMITS.checkUrlCharsMax,
  },
  {
    limit: 'checkAfterMsMax as the first delay of a policy',
    schema: ProducerGroupRequest,
    of: (size) => ({ checkUrls: [], checkPolicy: { firstDelayMs: size } }),
    max: LIMITS.checkAfterMsMax,
  },
  {
    limit: 'waitMsMax',
    schema: BusinessKeyQuery,
    of: (size) => ({ waitMs: String(size) }),
    max: LIMITS.waitMsMax,
  },
  {
    limit: 'searchPageMax',
    schema: SearchQuery,
    of: (size) => ({ limit: String(size) }),
    max: LIMITS.searchPageMax,
  },
  {
    limit: 'reasonCharsMax',
    schema: ResolveRequest,
    of: (size) => ({ action: 'commit', operator: 'ann', reason: text(size) }),
    max: LIMITS.reasonCharsMax,
  },
  {
    limit: 'operatorCharsMax',
    schema: ResolveRequest,
    of: (size) => ({ action: 'resend', operator: text(size), reason: 'r' }),
    max: LIMITS.operatorCharsMax,
  },
  {
    limit: 'receiptsPerMessageMax',
    schema: ReceiptBatch,
    of: (size) => ({
      receipts: many(size, () => ({ messageId: 'm', consumerGroup: 'g', kind: 'consumed' })),
    }),
    max: LIMITS.receiptsPerMessageMax,
  },
  {
    limit: 'causeCharsMax',
    schema: ReceiptBatch,
    of: (size) => ({
      receipts: [{ messageId: 'm', consumerGroup: 'g', kind: 'failed', cause: text(size) }],
    }),
    max: LIMITS.causeCharsMax,
  },
  {
    limit: 'checksPerPollMax of checks',
    schema: PollChecksRequest,
    of: (size) => ({ limit: size }),
    max: LIMITS.checksPerPollMax,
  },
  {
    limit: 'checksPerPollMax of answers',
    schema: PollChecksRequest,
    of: (size) => ({ answers: many(size, () => ({ id: ID, decision: 'unknown' })) }),
    max: LIMITS.checksPerPollMax,
  },
  {
    limit: 'waitMsMax of a poll',
    schema: PollChecksRequest,
    of: (size) => ({ waitMs: size }),
    max: LIMITS.waitMsMax,
  },
  {
    limit: 'dataDepthMax of data that comes with the commit',
    schema: CommitRequest,
    of: (size) => ({ messageData: [{ number: 0, data: nested(size) }] }),
    max: LIMITS.dataDepthMax,
  },
  {
    limit: 'contentTypeBytesMax',
    schema: PrepareRequest,
    // One ASCII character makes the odd number of bytes.
    of: (size) =>
      messageWith({
        data: undefined,
        dataBase64: 'AA==',
        contentType: `${'é'.repeat((size - (size % 2)) / 2)}${'a'.repeat(size % 2)}`,
      }),
    max: LIMITS.contentTypeBytesMax,
  },
  {
    limit: 'messagesPerTransactionMax of data that comes with the commit',
    schema: CommitRequest,
    of: (size) => ({ messageData: many(size, (number) => ({ number, data: 1 })) }),
    max: LIMITS.messagesPerTransactionMax,
  },
  ...(
    [
      ['routingKeysPerSubscriptionMax', (size) => ({ routingKeys: many(size, () => 'a') })],
      ['retryDelaysMax', (size) => ({ retryDelaysMs: many(size, () => 1) })],
      ['partitionsMax', (size) => ({ partitions: size })],
      ['announcedQueuesMax', (size) => ({ queues: many(size, () => 'a') })],
    ] as [keyof typeof LIMITS, (size: number) => object][]
  ).map(([limit, fields]) => ({
    limit,
    schema: Announcement,
    of: (size: number) => ({ ...ANNOUNCEMENT, ...fields(size) }),
    max: LIMITS[limit],
  })),
];

describe('limits', () => {
  test.each(EDGES)('$limit: $max pass, one more is refused', ({ schema, of, max, code }) => {
    expect(verdictOn(schema, of(max))).toBe('ok');
    expect(verdictOn(schema, of(max + 1))).toBe(code ?? 'INVALID_REQUEST');
  });

  /** Held outside the schemas: by the HTTP server, the intake, the AMQP client and whoever reads. */
  const ELSEWHERE = [
    'transactionBytesMax',
    'batchBytesMax',
    'idAgeMsMax',
    'idAheadMsMax',
    'pollsPerGroupMax',
    'announcementBytesMax',
  ];

  test('every limit of the schemas has a test of its edge', () => {
    const tested = EDGES.map(({ limit }) => limit.split(/[ ,]/)[0]);
    expect(new Set([...tested, ...ELSEWHERE])).toEqual(new Set(Object.keys(LIMITS)));
  });
});

describe('what is refused, and by which code', () => {
  test.each<[string, object, string]>([
    ['no message', { messages: [] }, 'INVALID_REQUEST'],
    ['an unknown field', { colour: 'red' }, 'UNKNOWN_FIELD'],
    ['an unknown field of a message', { messages: [{ ...MESSAGE, ttl: 1 }] }, 'UNKNOWN_FIELD'],
    ['an id that is no UUID', { id: 'order-7' }, 'INVALID_ID'],
    ['a UUID of version 4', { id: '0198f3c2-7a10-4cc3-98c4-dc0c0c07398f' }, 'INVALID_ID'],
    ['an id with a line break', { id: `${ID}\n` }, 'INVALID_ID'],
    ['a group with a slash', { producerGroup: 'a/b' }, 'INVALID_NAME'],
    ['a group that begins with a dot', { producerGroup: '.a' }, 'INVALID_NAME'],
    ['a repeated business key', { businessKeys: ['a', 'a'] }, 'INVALID_REQUEST'],
    ['an empty business key', { businessKeys: [''] }, 'INVALID_REQUEST'],
    ['a business key with a line break', { businessKeys: ['a\nb'] }, 'INVALID_NAME'],
    ['half a surrogate pair', { businessKeys: ['\ud800'] }, 'INVALID_NAME'],
    ['a repeated expected group', { expects: ['a', 'a'] }, 'INVALID_REQUEST'],
    [
      'a group expected twice by one message (N06)',
      { messages: [{ ...MESSAGE, expects: ['a', 'a'] }] },
      'INVALID_REQUEST',
    ],
    [
      'expected groups of the transaction and of a message (N06)',
      { expects: ['a'], messages: [{ ...MESSAGE, expects: ['b'] }] },
      'INVALID_REQUEST',
    ],
    [
      'expected groups of the transaction and a message that names none (N06)',
      { expects: ['a'], messages: [{ ...MESSAGE, expects: [] }] },
      'INVALID_REQUEST',
    ],
    [
      'a message that is dropped and expected (N06)',
      { messages: [{ ...MESSAGE, ifUnrouted: 'drop', expects: ['a'] }] },
      'INVALID_REQUEST',
    ],
    [
      'a message that compensates without groups beside one that has them (N06)',
      {
        messages: [
          { ...MESSAGE, expects: ['a'] },
          { ...MESSAGE, compensate: true },
        ],
      },
      'INVALID_REQUEST',
    ],
    ['a check before the prepare', { checkAfterMs: -1 }, 'INVALID_REQUEST'],
    ['a check after half a millisecond', { checkAfterMs: 0.5 }, 'INVALID_REQUEST'],
  ])('a prepare with %s', (_, changes, code) => {
    expect(verdictOn(PrepareRequest, prepareWith(changes))).toBe(code);
  });

  test.each<[string, object, string]>([
    ['neither data nor dataBase64', { data: undefined }, 'INVALID_REQUEST'],
    ['an open message with data', { dataAtCommit: true }, 'INVALID_REQUEST'],
    [
      'an open message with a content type',
      { data: undefined, dataAtCommit: true, contentType: 'text/plain' },
      'INVALID_REQUEST',
    ],
    ['dataAtCommit that is false', { dataAtCommit: false }, 'INVALID_REQUEST'],
    ['both data and dataBase64', { dataBase64: 'YQ==' }, 'INVALID_REQUEST'],
    ['a content type for JSON', { contentType: 'text/plain' }, 'INVALID_REQUEST'],
    ['base64 without padding', { data: undefined, dataBase64: 'YQ' }, 'INVALID_BASE64'],
    ['base64 with a line break', { data: undefined, dataBase64: 'YQ==\n' }, 'INVALID_BASE64'],
    ['base64 of URLs', { data: undefined, dataBase64: '_-8=' }, 'INVALID_BASE64'],
    ['a topic of RabbitMQ itself', { topic: 'amq.topic' }, 'INVALID_NAME'],
    ['no topic', { topic: '' }, 'INVALID_NAME'],
    ['a routing key with a NUL', { routingKey: 'a\0' }, 'INVALID_NAME'],
    ['two times to leave', { deliverAt: 1, delayMs: 1 }, 'INVALID_REQUEST'],
    ['a compensation that no group can cause', { compensate: true }, 'INVALID_REQUEST'],
    ['an unknown ifUnrouted', { ifUnrouted: 'park' }, 'INVALID_REQUEST'],
    ['a header of a list', { headers: { tags: ['a'] } }, 'INVALID_REQUEST'],
  ])('a message with %s', (_, changes, code) => {
    expect(verdictOn(PrepareRequest, messageWith(changes))).toBe(code);
  });

  test.each(['checkContext', 'checkAfterMs'])('a send has no %s', (field) => {
    expect(verdictOn(SendRequest, prepareWith({ [field]: 1 }))).toBe('UNKNOWN_FIELD');
  });

  test.each([
    'ftp://a.example/',
    'http://user@a.example/',
    'http://:secret@a.example/',
    'http://a.example/#part',
    '/relative',
    'javascript:alert(1)',
  ])('%s is no check URL', (url) => {
    expect(verdictOn(ProducerGroupRequest, { checkUrls: [url] })).toBe('INVALID_REQUEST');
  });

  test('the error names each wrong field, and shows at most ten', () => {
    const wrong = prepareWith({ producerGroup: 1, expects: 'a' });
    expect(() => parse(PrepareRequest, wrong, 'the prepare')).toThrow(
      /^the prepare is not valid: producerGroup: .+; expects: .+/,
    );
    const hostile = prepareWith({ messages: many(30, () => 1) });
    try {
      parse(PrepareRequest, hostile, 'the prepare');
    } catch (error) {
      expect((error as EscrowError).fields).toHaveLength(10);
      expect((error as EscrowError).fields[0]?.path).toBe('messages.0');
    }
    expect.assertions(3);
  });
});

describe('defaults', () => {
  test('a prepare of nothing but group and message is filled in', () => {
    expect(PrepareRequest.parse(PREPARE)).toEqual({
      producerGroup: 'accounts',
      businessKeys: [],
      expects: [],
      messages: [{ topic: 'user', routingKey: '', data: 1, headers: {}, ifUnrouted: 'retry' }],
    });
  });

  test('null is data, as any JSON value is', () => {
    expect(verdictOn(PrepareRequest, messageWith({ data: null }))).toBe('ok');
  });

  test('a group without a policy gets the one of the design: 15 times unknown, an hour to the alert', () => {
    const { checkPolicy, rotateSecret } = ProducerGroupRequest.parse({ checkUrls: [] });
    expect(rotateSecret).toBe(false);
    expect(checkPolicy).toEqual({
      firstDelayMs: 10_000,
      delayMsMax: 300_000,
      unknownMax: 15,
      timeoutMs: 3_000,
      concurrencyMax: 8,
      alertAfterMs: 3_600_000,
    });
    expect(CheckPolicy.parse({ unknownMax: 3 })).toEqual({ ...checkPolicy, unknownMax: 3 });
  });

  test('a search shows 50, a look at a business key does not wait', () => {
    expect(SearchQuery.parse({})).toEqual({ limit: 50 });
    expect(BusinessKeyQuery.parse({})).toEqual({ waitMs: 0 });
  });
});

describe('ids', () => {
  const hex = (length: number) =>
    fc.string({
      unit: fc.constantFrom(...'0123456789abcdef'),
      minLength: length,
      maxLength: length,
    });
  const uuidV7 = fc
    .tuple(fc.nat(2 ** 48 - 1), hex(3), fc.constantFrom('8', '9', 'a', 'b'), hex(3), hex(12))
    .map(([at, a, variant, b, c]) => {
      const time = at.toString(16).padStart(12, '0');
      return { at, id: `${time.slice(0, 8)}-${time.slice(8)}-7${a}-${variant}${b}-${c}` };
    });

  test('upper and lower case are one id (F21)', () => {
    fc.assert(
      fc.property(uuidV7, ({ id }) => {
        expect(TransactionId.parse(id.toUpperCase())).toBe(id);
      }),
    );
  });

  test('the time inside an id can be read from any', () => {
    expect(timeOfId(ID)).toBe(0x0198f3c27a10);
    fc.assert(fc.property(uuidV7, ({ id, at }) => expect(timeOfId(id)).toBe(at)));
  });

  test('a message id leads back to its transaction and number', () => {
    fc.assert(
      fc.property(uuidV7, fc.nat(LIMITS.messagesPerTransactionMax - 1), ({ id }, number) => {
        expect(parseMessageId(messageIdOf(id, number))).toEqual({ transactionId: id, number });
      }),
    );
  });

  test.each([
    ['a transaction id', ID],
    ['a number that no transaction has', `${ID}-32`],
    ['a number written differently', `${ID}-01`],
    ['a negative number', `${ID}--1`],
    ['an id in upper case', `${ID.toUpperCase()}-1`],
    ['something after the number', `${ID}-1\n`],
    ['nothing', ''],
  ])('%s is no message id of ours', (_, messageId) => {
    expect(parseMessageId(messageId)).toBeUndefined();
  });
});

describe('numbers in headers', () => {
  const verdict = (value: number) =>
    verdictOn(PrepareRequest, messageWith({ headers: { score: value } }));

  test.each([-(2 ** 63), 2 ** 63 - 1024, 2 ** 50 - 0.25, -0.5, 0])('U11: %d travels', (value) => {
    expect(verdict(value)).toBe('ok');
  });

  test.each([
    ['below -2^63', -(2 ** 63) - 2048],
    ['2^63', 2 ** 63],
    ['with a fraction from 2^50 on', 2 ** 50 + 0.25],
    ['beyond every integer', 1e300],
    ['that is none', Number.NaN],
    ['without an end', Number.POSITIVE_INFINITY],
  ])('U11: a number in a header that AMQP can not carry is refused: %s', (_, value) => {
    expect(verdict(value)).toBe('INVALID_REQUEST');
  });
});

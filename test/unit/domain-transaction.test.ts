import { isDeepStrictEqual } from 'node:util';
import { crc32 } from 'node:zlib';
import { HEADERS, type Message } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import { contentHash } from '../../broker/src/domain/content-hash.js';
import { bodyOf, contentTypeOf, outgoingOf } from '../../broker/src/domain/outgoing.js';
import {
  allMessages,
  type Committed,
  type Content,
  hasMessage,
  messageBit,
  withoutMessages,
} from '../../broker/src/domain/transaction.js';

const MESSAGES_MAX = 32;
const FULL = 2 ** 32 - 1;

describe('masks', () => {
  const aNumber = fc.nat(MESSAGES_MAX - 1);
  const aMask = fc.nat(FULL);

  test('a mask of all messages has each of them and no other, up to bit 31', () => {
    for (let count = 1; count <= MESSAGES_MAX; count += 1) {
      const mask = allMessages(count);
      const has = Array.from({ length: MESSAGES_MAX }, (_, number) => hasMessage(mask, number));
      expect(has).toEqual(Array.from({ length: MESSAGES_MAX }, (_, number) => number < count));
    }
    expect(allMessages(MESSAGES_MAX)).toBe(FULL);
  });

  test('clearing a message takes its bit and leaves the others, unsigned', () => {
    fc.assert(
      fc.property(aMask, aNumber, aNumber, (mask, cleared, other) => {
        const left = withoutMessages(mask, messageBit(cleared));
        expect(left).toBeGreaterThanOrEqual(0);
        expect(hasMessage(left, cleared)).toBe(false);
        if (other !== cleared) expect(hasMessage(left, other)).toBe(hasMessage(mask, other));
      }),
    );
    expect(withoutMessages(FULL, messageBit(0))).toBe(FULL - 1);
    expect(withoutMessages(FULL, messageBit(31))).toBe(2 ** 31 - 1);
  });

  test('clearing each message in any order ends with none', () => {
    const order = fc.shuffledSubarray(
      Array.from({ length: MESSAGES_MAX }, (_, number) => number),
      { minLength: MESSAGES_MAX },
    );
    fc.assert(
      fc.property(order, (numbers) => {
        const left = numbers.reduce(
          (mask, number) => withoutMessages(mask, messageBit(number)),
          FULL,
        );
        expect(left).toBe(0);
      }),
    );
  });
});

const MESSAGE: Message = {
  topic: 'user',
  routingKey: 'registered',
  data: { userId: 7, name: 'a' },
  headers: { tenant: 'a', count: 1 },
  ifUnrouted: 'retry',
};

const { data: _, ...withoutJson } = MESSAGE;

const CONTENT: Content = {
  id: '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f',
  producerGroup: 'accounts',
  businessKeys: ['phone:1'],
  expects: ['phone-index'],
  checkContext: 'shard-3',
  messages: [MESSAGE],
  trace: {},
};

describe('content hash', () => {
  const hash = (content: Content, op: 'prepare' | 'send' = 'prepare', checkAfterMs?: number) =>
    contentHash(content, op, checkAfterMs).toString('hex');

  /** The same value with the members of every object in reverse order. */
  function reversed(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(reversed);
    if (typeof value !== 'object' || value === null) return value;
    const members = Object.entries(value).reverse();
    return Object.fromEntries(members.map(([key, member]) => [key, reversed(member)]));
  }

  test('the order of members does not matter, at any depth', () => {
    expect(hash(reversed(CONTENT) as Content)).toBe(hash(CONTENT));
    fc.assert(
      fc.property(fc.jsonValue(), (data) => {
        const content = { ...CONTENT, messages: [{ ...MESSAGE, data }] };
        expect(hash(reversed(content) as Content)).toBe(hash(content));
      }),
    );
  });

  test('the trace does not matter: a repeat comes from another span', () => {
    expect(hash({ ...CONTENT, trace: { traceparent: '00-a-b-01' } })).toBe(hash(CONTENT));
  });

  test('a field that is absent and one that is undefined are the same', () => {
    const message = { ...MESSAGE, contentType: undefined } as unknown as Message;
    expect(hash({ ...CONTENT, messages: [message] })).toBe(hash(CONTENT));
  });

  const withMessage = (changes: Partial<Message>): Content => ({
    ...CONTENT,
    messages: [{ ...MESSAGE, ...changes }],
  });

  /** One for each member, so that a new member without one does not compile. */
  const DIFFERENT: Record<Exclude<keyof Content | keyof Message, 'trace'>, Content> = {
    id: { ...CONTENT, id: '0198f3c2-7a10-7cc3-98c4-dc0c0c073990' },
    producerGroup: { ...CONTENT, producerGroup: 'billing' },
    businessKeys: { ...CONTENT, businessKeys: ['phone:2'] },
    expects: { ...CONTENT, expects: [] },
    checkContext: { ...CONTENT, checkContext: undefined },
    messages: { ...CONTENT, messages: [MESSAGE, MESSAGE] },
    topic: withMessage({ topic: 'order' }),
    routingKey: withMessage({ routingKey: '' }),
    data: withMessage({ data: { userId: '7', name: 'a' } }),
    dataBase64: { ...CONTENT, messages: [{ ...withoutJson, dataBase64: '' }] },
    contentType: withMessage({ contentType: 'text/plain' }),
    headers: withMessage({ headers: { tenant: 'a', count: '1' } }),
    ifUnrouted: withMessage({ ifUnrouted: 'drop' }),
    dataAtCommit: { ...CONTENT, messages: [{ ...withoutJson, dataAtCommit: true }] },
    deliverAt: withMessage({ deliverAt: 5 }),
    delayMs: withMessage({ delayMs: 5 }),
    orderingKey: withMessage({ orderingKey: '5' }),
    compensate: withMessage({ compensate: true }),
    cloudEvents: withMessage({ cloudEvents: {} }),
  };

  test('every other field matters, and a prepare is no send', () => {
    const hashes = [
      hash(CONTENT),
      hash(CONTENT, 'send'),
      hash(CONTENT, 'prepare', 5),
      ...Object.values(DIFFERENT).map((content) => hash(content)),
    ];
    expect(new Set(hashes).size).toBe(hashes.length);
  });

  test('an open message is not one whose data is null', () => {
    const open = { ...CONTENT, messages: [{ ...withoutJson, dataAtCommit: true as const }] };
    expect(hash(open)).not.toBe(hash(withMessage({ data: null })));
  });

  test('N06: groups that a message names matter, and an empty list says what none says', () => {
    const named = hash(withMessage({ expects: ['stock'] }));
    expect(named).not.toBe(hash(CONTENT));
    expect(named).not.toBe(hash(withMessage({ expects: ['mail'] })));
    expect(hash(withMessage({ expects: [] }))).toBe(hash(CONTENT));
  });

  test('N06: what 0.1 could store has the hash that 0.1 gave it', () => {
    const plain: Content = {
      ...CONTENT,
      ...{ businessKeys: [], expects: [], checkContext: undefined },
      messages: [{ topic: 'user', routingKey: '', data: 1, headers: {}, ifUnrouted: 'retry' }],
    };
    const everyField: Content = {
      ...CONTENT,
      ...{ businessKeys: ['phone:1', 'a'], expects: ['phone-index', 'email-index'] },
      messages: [
        {
          ...MESSAGE,
          ...{ delayMs: 5, orderingKey: 'k', compensate: true, cloudEvents: { subject: 'x' } },
        },
        {
          ...{ topic: 'user', routingKey: '', dataBase64: 'AA==', contentType: 'text/plain' },
          ...{ headers: {}, ifUnrouted: 'retry', deliverAt: 7 },
        },
        { topic: 'user', routingKey: '', dataAtCommit: true, headers: {}, ifUnrouted: 'retry' },
      ],
    };
    // Made by the code of commit 8442033, which is 0.1.
    expect([
      hash(plain),
      hash(plain, 'send'),
      hash(everyField, 'prepare', 10_000),
      hash(everyField, 'send'),
    ]).toEqual([
      '5551071545b1c875832721fb313117e0b275bbb8e1b7f5cd4160ec13eb46f7b6',
      '741735f949299ca79af90219b3411d05391fd0de1df4d54cba992eb8205f64b9',
      'b3e4bbcb9137f0111fae77ec12c23a38cfa255e9a5683330d14c7a49ba293a47',
      'f6fcda10bc6a99580a66534c0b346760745b22e4b79abd97b3606534adf1b64c',
    ]);
  });

  test('a hash stays what it was, so that what is stored is still recognised', () => {
    expect(hash(CONTENT)).toBe('429e2191da384964bdebb4e71cba08d04ace0041ccf5eacce76217a42a59db76');
  });

  test('the order of messages, and of items in data, matters', () => {
    const other = { ...MESSAGE, topic: 'order' };
    expect(hash({ ...CONTENT, messages: [MESSAGE, other] })).not.toBe(
      hash({ ...CONTENT, messages: [other, MESSAGE] }),
    );
    expect(hash(withMessage({ data: [1, 2] }))).not.toBe(hash(withMessage({ data: [2, 1] })));
  });

  test('two different JSON values never have the same text', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (one, other) => {
        // As they come out of a body: -0 is 0 there.
        const [a, b]: unknown[] = JSON.parse(JSON.stringify([one, other]));
        const same = hash(withMessage({ data: a })) === hash(withMessage({ data: b }));
        expect(same).toBe(isDeepStrictEqual(a, b));
      }),
      { numRuns: 500 },
    );
  });
});

describe('outgoing messages', () => {
  const receiptsQueue = 'escrow:receipts:test';
  const sent = (transaction: Committed, number: number, message: Message) =>
    outgoingOf({ transaction, number, message, receiptsQueue });
  const committed = (messages: Message[], changes: Partial<Committed> = {}): Committed => ({
    ...CONTENT,
    messages,
    preparedAt: 1_700_000_000_999,
    decidedAt: 1_700_000_001_999,
    pending: 1,
    attempts: 0,
    bytes: 1,
    ...changes,
  });

  test('a message carries everything that a consumer without the SDK needs', () => {
    const transaction = committed([MESSAGE, MESSAGE], {
      expects: ['phone-index', 'email-index'],
      trace: { traceparent: '00-a-b-01', tracestate: 'v=1' },
    });
    expect(sent(transaction, 1, MESSAGE)).toEqual({
      topic: 'user',
      routingKey: 'registered',
      body: Buffer.from('{"userId":7,"name":"a"}'),
      messageId: `${CONTENT.id}-1`,
      contentType: 'application/json',
      type: 'registered',
      producerGroup: 'accounts',
      replyTo: 'escrow:receipts:test',
      timestampSeconds: 1_700_000_000,
      headers: {
        tenant: 'a',
        count: 1,
        traceparent: '00-a-b-01',
        tracestate: 'v=1',
        'escrow-transaction-id': CONTENT.id,
        'escrow-message-number': 1,
        'escrow-message-count': 2,
        'escrow-topic': 'user',
        'escrow-routing-key': 'registered',
        'escrow-prepared-at': 1_700_000_000_999,
        'escrow-body-crc32': crc32('{"userId":7,"name":"a"}'),
        'escrow-expects': 'phone-index,email-index',
      },
    });
  });

  test('N06: a message names its own groups, and one without any says nothing of receipts', () => {
    const placed: Message = { ...MESSAGE, expects: ['stock', 'mail'] };
    const transaction = committed([placed, MESSAGE, { ...MESSAGE, expects: [] }], { expects: [] });
    const [first, ...others] = transaction.messages.map((message, number) =>
      sent(transaction, number, message),
    );
    expect(first).toMatchObject({
      replyTo: 'escrow:receipts:test',
      headers: { 'escrow-expects': 'stock,mail' },
    });
    for (const other of others) {
      expect(other).not.toHaveProperty('replyTo');
      expect(Object.keys(other.headers)).not.toContain(HEADERS.expects);
    }
  });

  test('what is not there is not sent: no trace, nobody expected', () => {
    const outgoing = sent(committed([MESSAGE], { expects: [] }), 0, MESSAGE);
    expect(outgoing).not.toHaveProperty('replyTo');
    const { headers } = outgoing;
    expect(Object.keys(headers)).not.toContain('traceparent');
    expect(Object.keys(headers)).not.toContain('tracestate');
    expect(Object.keys(headers)).not.toContain(HEADERS.expects);
  });

  test('without a routing key the type is the topic', () => {
    const message = { ...MESSAGE, routingKey: '' };
    expect(sent(committed([message]), 0, message)).toMatchObject({
      routingKey: '',
      type: 'user',
    });
  });

  test('headers of ours win over any of the same name', () => {
    const message = { ...MESSAGE, headers: { [HEADERS.messageNumber]: 99, traceparent: 'forged' } };
    const trace = { traceparent: 'true' };
    const { headers } = sent(committed([message], { trace }), 0, message);
    expect(headers).toMatchObject({ [HEADERS.messageNumber]: 0, traceparent: 'true' });
  });

  test('JSON goes as it is, null and false too', () => {
    fc.assert(
      fc.property(fc.jsonValue(), (value) => {
        expect(bodyOf({ ...MESSAGE, data: value }).toString()).toBe(JSON.stringify(value));
      }),
    );
  });

  test('an open message has no body to send', () => {
    expect(() => bodyOf({ ...withoutJson, dataAtCommit: true })).toThrow('open message');
  });

  test('bytes arrive as they were, with their content type or as any bytes', () => {
    fc.assert(
      fc.property(fc.uint8Array(), (bytes) => {
        const message = { ...withoutJson, dataBase64: Buffer.from(bytes).toString('base64') };
        expect([...bodyOf(message)]).toEqual([...bytes]);
      }),
    );
    const bytes = { ...withoutJson, dataBase64: 'YQ==' };
    expect(contentTypeOf(bytes)).toBe('application/octet-stream');
    expect(contentTypeOf({ ...bytes, contentType: 'image/png' })).toBe('image/png');
    expect(contentTypeOf(MESSAGE)).toBe('application/json');
  });
});

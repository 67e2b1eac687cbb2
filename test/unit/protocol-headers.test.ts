import {
  deadLetterQueueName,
  HEADERS,
  MessageHeaders,
  queueName,
  retryQueueName,
} from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';

/*
 * Measured on RabbitMQ: CC and BCC deliver copies into queues of other tenants, x-* steers RabbitMQ
 * itself. So the list of what passes is short, and this looks for a way around it.
 */

/** What must never pass, in words of its own, to not repeat the pattern that is being tested. */
function isReserved(name: string): boolean {
  const lower = name.toLowerCase();
  if (['cc', 'bcc', 'traceparent', 'tracestate', 'sender-selected'].includes(lower)) return true;
  if (lower.startsWith('x-') || lower.startsWith('escrow-')) return true;
  return lower.startsWith('sender-selected');
}

const passes = (name: string) =>
  Object.keys(MessageHeaders.safeParse({ [name]: 'value' }).data ?? {}).length > 0;

const RESERVED = [
  'CC',
  'BCC',
  'x-death',
  'x-delay',
  'x-match',
  'x-',
  'traceparent',
  'tracestate',
  'sender-selected-distribution',
  ...Object.values(HEADERS),
];

/** The same name in any mixture of cases. */
const inAnyCase = (name: string) =>
  fc
    .array(fc.boolean(), { minLength: name.length, maxLength: name.length })
    .map((upper) =>
      [...name].map((char, i) => (upper[i] ? char.toUpperCase() : char.toLowerCase())).join(''),
    );

test('no reserved name passes, in whatever case it is written', () => {
  fc.assert(
    fc.property(fc.constantFrom(...RESERVED).chain(inAnyCase), (name) => {
      expect(passes(name)).toBe(false);
    }),
    { numRuns: 500 },
  );
});

test('no reserved name passes behind or before characters that somebody might strip', () => {
  const noise = fc.string({ unit: 'binary', minLength: 1, maxLength: 3 });
  const noisy = fc
    .tuple(fc.constantFrom(...RESERVED), noise, fc.boolean())
    .map(([name, extra, before]) => (before ? extra + name : name + extra));
  fc.assert(
    fc.property(noisy, (name) => {
      const stripped = name.replace(/[^\x21-\x7e]/g, '');
      if (stripped !== name) expect(passes(name)).toBe(false);
    }),
    { numRuns: 2_000 },
  );
});

test('whatever passes is printable ASCII without spaces, begins with a letter or digit, and is not reserved', () => {
  const anything = fc.oneof(
    fc.string(),
    fc.string({ unit: 'binary' }),
    fc.string({ unit: fc.constantFrom(...'xXcCbB-_.:09 \n\0') }),
  );
  fc.assert(
    fc.property(anything, (name) => {
      if (!passes(name)) return;
      expect(name).toMatch(/^[a-z0-9][!-~]*$/i);
      expect(isReserved(name)).toBe(false);
    }),
    { numRuns: 2_000 },
  );
});

test.each(['tenant', 'x', 'xx-1', 'ccs', 'escrow', 'Content-Language', 'a.b:c_d', '1'])(
  'the header %s passes as it is',
  (name) => {
    const headers = { [name]: 'value', number: 1.5, flag: false };
    expect(MessageHeaders.parse(headers)).toEqual(headers);
  },
);

test.each([Number.NaN, Number.POSITIVE_INFINITY, null, {}, ['a'], undefined])(
  'the header value %p is refused',
  (value) => {
    expect(MessageHeaders.safeParse({ tenant: value }).success).toBe(false);
  },
);

test('a header called __proto__ reaches nobody and changes no prototype', () => {
  const parsed = MessageHeaders.safeParse(JSON.parse('{"__proto__": "a", "tenant": "b"}'));
  expect(Object.keys(parsed.data ?? {})).not.toContain('__proto__');
  expect(Object.getPrototypeOf(parsed.data ?? {})).toBe(Object.prototype);
});

test('every header of ours begins with escrow-, so that no caller can set it', () => {
  const names = Object.values(HEADERS);
  expect(names.filter((name) => !name.startsWith('escrow-'))).toEqual([]);
  expect(new Set(names).size).toBe(names.length);
});

test('two pairs of topic and group never share a queue, and each purpose has its own', () => {
  const name = fc.stringMatching(/^[A-Za-z0-9][A-Za-z0-9._-]{0,5}$/);
  const pair = fc.tuple(name, name);
  const queues = ([topic, group]: [string, string]) => [
    queueName(topic, group),
    deadLetterQueueName(topic, group),
    retryQueueName(topic, group, 10),
    retryQueueName(topic, group, 100),
  ];
  fc.assert(
    fc.property(pair, pair, (one, other) => {
      fc.pre(one.join(' ') !== other.join(' '));
      expect(new Set([...queues(one), ...queues(other)]).size).toBe(8);
    }),
  );
});

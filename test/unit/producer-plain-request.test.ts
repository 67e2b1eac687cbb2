import { PrepareRequest, SendRequest } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isPlainId, plainPrepare, plainSend } from '../../producer-sdk/src/plain-request.js';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };

/** Mostly what is right, now and then what is wrong, so that whole requests are often plain. */
const mostly = <T, U>(right: fc.Arbitrary<T>, wrong: fc.Arbitrary<U>) =>
  fc.oneof({ weight: 12, arbitrary: right }, { weight: 1, arbitrary: wrong });
const given = fc.constantFrom('user', 'a.b-c_d', 'x'.repeat(100));
const oddText = fc.oneof(
  fc.constantFrom('amq.topic', '.a', '', ' ', 'ü', '\u0007', '\ud800'),
  fc.constantFrom(101, 128, 129, 255, 256, 1024, 1025).map((length) => 'x'.repeat(length)),
  fc.string(),
);
const text = mostly(given, fc.oneof(oddText, fc.anything()));
const keys = (count: number) => Array.from({ length: count }, (_, n) => `key-${n}`);
const none = fc.constant(undefined);
const extras = (...fields: object[]) => mostly(fc.constant({}), fc.constantFrom(...fields));
const merged = (parts: [object, object]): Record<string, unknown> => ({ ...parts[0], ...parts[1] });

const anyMessage = fc
  .tuple(
    fc.record({
      topic: text,
      routingKey: fc.oneof(none, given, oddText),
      data: mostly(fc.jsonValue(), none),
    }),
    extras({ headers: { tenant: 'a' } }, { headers: { 'x-death': 1 } }, { other: 1 }),
  )
  .map(merged);
const anyRequest = fc
  .tuple(
    fc.record({
      messages: mostly(
        fc.array(anyMessage, { minLength: 1, maxLength: 3 }),
        fc.constantFrom([], 'user', [null], Array(32).fill(message), Array(33).fill(message)),
      ),
      businessKeys: fc.oneof(
        none,
        fc.array(text, { maxLength: 3 }),
        fc.constantFrom(['x'.repeat(128)], ['x'.repeat(129)], keys(16), keys(17)),
      ),
      checkAfterMs: fc.oneof(none, fc.constantFrom(0, -1, 0.5, 86_400_000, 86_400_001, '1')),
      checkContext: fc.oneof(none, text),
    }),
    extras({ expects: ['phone-index'] }, { other: 1 }),
  )
  .map(merged);

/** What the broker makes of the JSON. */
const parsed = (schema: typeof PrepareRequest | typeof SendRequest, request: object) =>
  schema.safeParse({ ...JSON.parse(JSON.stringify(request)), producerGroup: 'accounts', id: ID });

test('what counts as plain means the same to the schema, for a prepare and for a send', () => {
  let plain = 0;
  fc.assert(
    fc.property(anyRequest, (request) => {
      for (const [look, schema] of [
        [plainPrepare, PrepareRequest],
        [plainSend, SendRequest],
      ] as const) {
        const copy = look(request);
        if (copy === undefined) continue;
        plain += 1;
        const whole = schema.safeParse({ ...request, producerGroup: 'accounts', id: ID });
        expect(whole.error).toBeUndefined();
        expect(parsed(schema, copy).data).toEqual(parsed(schema, whole.data ?? {}).data);
      }
    }),
    { numRuns: 2_000 },
  );
  // Otherwise the property would hold of nothing.
  expect(plain).toBeGreaterThan(200);
});

test('requests as callers write them are plain', () => {
  expect(plainPrepare({ messages: [message] })).toBeDefined();
  expect(
    plainPrepare({ messages: [{ topic: 'user', data: null }], checkAfterMs: 0 }),
  ).toBeDefined();
  const sharded = { businessKeys: ['phone:1', 'phone:2'], checkContext: 'shard-3' };
  expect(plainPrepare({ messages: [message, message], ...sharded })).toBeDefined();
  expect(plainSend({ messages: [message] })).toBeDefined();
});

test('only what was looked at is written', () => {
  class Registered {
    topic = 'user';
    data = 1;
    get routingKey() {
      return 'registered';
    }
    toJSON() {
      return { topic: 'CC' };
    }
  }
  const copy = plainSend({ messages: [new Registered()] });
  expect(JSON.parse(JSON.stringify(copy))).toEqual({
    messages: [{ topic: 'user', routingKey: 'registered', data: 1 }],
  });
  const own = { ...message, toJSON: () => ({ topic: 'CC' }) };
  expect(plainSend({ messages: [own] })).toBeUndefined();
});

test('only an id in its one spelling is plain', () => {
  expect(isPlainId(ID)).toBe(true);
  for (const other of [
    ID.toUpperCase(),
    [ID],
    `${ID}\n`,
    ID.replace('-7cc3', '-4cc3'),
    undefined,
  ]) {
    expect(isPlainId(other)).toBe(false);
  }
});

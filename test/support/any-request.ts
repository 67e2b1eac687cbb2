import fc from 'fast-check';

export const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
export const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };

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
const merged = (parts: object[]): Record<string, unknown> => Object.assign({}, ...parts);

const anyMessage = fc
  .tuple(
    fc.record({
      topic: text,
      routingKey: fc.oneof(none, given, oddText),
      data: mostly(fc.jsonValue(), none),
    }),
    extras(
      { headers: { tenant: 'a' } },
      { headers: { 'x-death': 1 } },
      { expects: ['phone-index'] },
      { expects: ['a', 'a'] },
      { other: 1 },
    ),
  )
  .map(merged);
/** Left out by half of them, together or alone: a send may not even have these as undefined. */
const checkFields = fc.oneof(
  fc.constant({}),
  fc.record(
    {
      checkAfterMs: fc.oneof(none, fc.constantFrom(0, -1, 0.5, 86_400_000, 86_400_001, '1')),
      checkContext: fc.oneof(none, text),
    },
    { requiredKeys: [] },
  ),
);
/** A prepare or a send, right or wrong in some field, without its id and producer group. */
export const anyRequest = fc
  .tuple(
    fc.record({
      messages: mostly(
        fc.array(anyMessage, { minLength: 1, maxLength: 3 }),
        fc.constantFrom([], 'user', [null], Array(32).fill(message), Array(33).fill(message)),
      ),
      businessKeys: fc.oneof(
        none,
        fc.uniqueArray(given),
        fc.array(text, { maxLength: 3 }),
        fc.constantFrom(['x'.repeat(128)], ['x'.repeat(129)], keys(16), keys(17)),
      ),
    }),
    checkFields,
    extras({ expects: ['phone-index'] }, { other: 1 }),
  )
  .map(merged);

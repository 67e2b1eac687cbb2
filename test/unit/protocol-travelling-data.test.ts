import {
  LIMITS,
  obstacleIn,
  plainPrepare,
  plainSend,
  SendRequest,
  shownPath,
} from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';

class Order {
  readonly lines = ['a'];
}
class Secret {
  readonly #value = 1;
  get value() {
    return this.#value;
  }
}
const cycle: Record<string, unknown> = {};
cycle.self = cycle;
/** 2^60 values if each is looked at as often as it can be reached, and 60 objects. */
let lattice: unknown = 1;
for (let level = 0; level < 60; level += 1) lattice = [lattice, lattice];

type Line = [what: string, data: unknown, path: (string | number)[], says: string];

const REFUSED: Line[] = [
  ['undefined', undefined, [], 'undefined'],
  ['undefined in a list', { a: [1, undefined] }, ['a', 1], 'undefined'],
  ['a hole in a list', new Array(2), [0], 'undefined'],
  ['a function', () => 1, [], 'is a function'],
  ['a method', { a: { run() {} } }, ['a', 'run'], 'is a function'],
  ['a symbol', { a: Symbol('x') }, ['a'], 'is a symbol'],
  ['a bigint', [1n], [0], 'write it as a text'],
  ['NaN', { a: Number.NaN }, ['a'], 'NaN'],
  ['Infinity as JSON reads it', JSON.parse('[1e400]'), [0], 'Infinity'],
  ['a number object that is NaN', [Object(Number.NaN)], [0], 'NaN'],
  ['a Map', { a: new Map([[1, 2]]) }, ['a'], 'is a Map'],
  ['a Map with a field beside', Object.assign(new Map(), { a: 1 }), [], 'is a Map'],
  ['a Set', [new Set([1])], [0], 'is a Set'],
  ['an error with a code', Object.assign(new Error('lost'), { code: 1 }), [], 'is a Error'],
  ['a promise', Promise.resolve(1), [], 'is a Promise'],
  ['a regular expression', [/a/], [0], 'is a RegExp'],
  ['bytes', { a: new Uint8Array(2) }, ['a'], 'is a Uint8Array'],
  ['an array buffer', new ArrayBuffer(2), [], 'is a ArrayBuffer'],
  ['what keeps its contents private', [new Secret()], [0], 'an instance of Secret'],
  ['search parameters', new URLSearchParams('a=1'), [], 'an instance of URLSearchParams'],
  ['what holds itself', cycle, Array(LIMITS.dataDepthMax).fill('self'), 'or holds itself'],
  ['what has 2^60 values in 60 objects', lattice, [], 'more values'],
  ['half of a surrogate pair', { a: '\ud83d' }, ['a'], 'surrogate'],
  ['its other half in a key', { a: { 'x\udc00': 1 } }, ['a', 'x\udc00'], 'surrogate'],
  ['__proto__', JSON.parse('{"a":{"__proto__":1}}'), ['a', '__proto__'], 'prototype'],
  ['constructor.prototype', { constructor: { prototype: {} } }, ['constructor'], 'prototype'],
  [
    'a toJSON that returns what can not travel',
    { a: { toJSON: () => [new Set()] } },
    ['a', 0],
    'Set',
  ],
  ['a toJSON that returns nothing, on top', { toJSON: () => undefined }, [], 'undefined'],
  [
    'a getter that throws',
    {
      get a() {
        throw new Error('not yet');
      },
    },
    [],
    'not yet',
  ],
];

test.each(REFUSED)('%s can not travel', (_, data, path, says) => {
  const obstacle = obstacleIn(data);
  expect(obstacle?.message).toContain(says);
  // Millions of values are looked at once.
  if (says === 'more values') return;
  expect(obstacle?.path).toEqual(path);
  expect(plainPrepare({ messages: [{ topic: 'user', data }] })).toBeUndefined();
  expect(plainSend({ messages: [{ topic: 'user', data }] })).toBeUndefined();
  const whole = SendRequest.safeParse({ producerGroup: 'a', messages: [{ topic: 'user', data }] });
  expect(whole.success).toBe(false);
});

test.each<[string, unknown, unknown]>([
  ['a Date', { at: new Date(0) }, { at: '1970-01-01T00:00:00.000Z' }],
  ['a Buffer', Buffer.from('a'), { type: 'Buffer', data: [97] }],
  ['a URL', [new URL('http://a/')], ['http://a/']],
  ['an instance of a class with fields', new Order(), { lines: ['a'] }],
  ['a field that is undefined', { a: 1, b: undefined }, { a: 1 }],
  ['an object without a prototype', Object.assign(Object.create(null), { a: 1 }), { a: 1 }],
  ['texts and numbers as objects', [Object('a'), Object(1)], ['a', 1]],
  ['an emoji, and its key', { '😀': '😀' }, { '😀': '😀' }],
  [
    'a constructor that is a text',
    { constructor: 'Smith & Sons' },
    { constructor: 'Smith & Sons' },
  ],
  ['an object of another realm', JSON.parse('{"a":{}}'), { a: {} }],
])('%s travels', (_, data, arrives) => {
  expect(obstacleIn(data)).toBeUndefined();
  expect(JSON.parse(JSON.stringify(data))).toEqual(arrives);
});

test('whatever JSON can say travels, but for what is refused by name', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 8, stringUnit: 'grapheme' }), (data) => {
      const refused = /__proto__/.test(JSON.stringify(data));
      expect(obstacleIn(data) === undefined || refused).toBe(true);
    }),
  );
});

test('what travels is on the wire what it was', () => {
  fc.assert(
    fc.property(
      fc.anything({
        withDate: true,
        withMap: true,
        withSet: true,
        withTypedArray: true,
        withBigInt: true,
        withNullPrototype: true,
        withObjectString: true,
        withSparseArray: true,
      }),
      (data) => {
        if (obstacleIn(data) !== undefined) return;
        const arrived = JSON.parse(JSON.stringify(data));
        expect(obstacleIn(arrived)).toBeUndefined();
        expect(JSON.parse(JSON.stringify(arrived))).toEqual(arrived);
      },
    ),
    { numRuns: 500 },
  );
});

describe('the path in a refusal', () => {
  test('is short and printable, whatever the keys are', () => {
    let data: unknown = () => 1;
    for (let level = 0; level < 20; level += 1) data = { [`${'k'.repeat(100)}\n\ud800`]: data };
    const obstacle = obstacleIn({ '\n\u0007': { a: [() => 1] } });
    expect(obstacle && shownPath(obstacle)).toEqual(['\ufffd\ufffd', 'a', 0]);
    const deep = obstacleIn(data);
    expect(deep && shownPath(deep).join('.').length).toBeLessThan(1_000);
  });
});

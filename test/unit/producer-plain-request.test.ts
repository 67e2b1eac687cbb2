import { PrepareRequest, SendRequest } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import { isPlainId, plainPrepare, plainSend } from '../../producer-sdk/src/plain-request.js';
import { anyRequest, ID, message } from '../support/any-request.js';

/** What the broker makes of the JSON. */
const parsed = (schema: typeof PrepareRequest | typeof SendRequest, request: object) =>
  schema.safeParse({ ...JSON.parse(JSON.stringify(request)), producerGroup: 'accounts', id: ID });

test('what counts as plain means the same to the schema, for a prepare and for a send', () => {
  const plain = { prepare: 0, send: 0 };
  fc.assert(
    fc.property(anyRequest, (request) => {
      for (const [op, look, schema] of [
        ['prepare', plainPrepare, PrepareRequest],
        ['send', plainSend, SendRequest],
      ] as const) {
        const copy = look(request);
        if (copy === undefined) continue;
        plain[op] += 1;
        const whole = schema.safeParse({ ...request, producerGroup: 'accounts', id: ID });
        expect(whole.error).toBeUndefined();
        expect(parsed(schema, copy).data).toEqual(parsed(schema, whole.data ?? {}).data);
      }
    }),
    { numRuns: 2_000 },
  );
  // Otherwise the property would hold of nothing.
  expect(Math.min(plain.prepare, plain.send)).toBeGreaterThan(50);
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

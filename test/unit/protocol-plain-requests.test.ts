import {
  BatchOperation,
  isPlainId,
  LIMITS,
  PrepareRequest,
  plainOperation,
  plainPrepare,
  plainPrepareRequest,
  plainSend,
  SendRequest,
} from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
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

test('a plain operation is what its schema makes of it, and what is not plain is left to the schema', () => {
  let plain = 0;
  const operation = fc.oneof(
    anyRequest.map((request) => ({ op: 'prepare', id: ID, producerGroup: 'accounts', ...request })),
    fc.record(
      {
        op: fc.constantFrom('prepare', 'send', 'commit', 'rollback', 'x'),
        id: fc.constantFrom(ID, ID.toUpperCase(), '1'),
        producerGroup: fc.constantFrom('accounts', '-', ''),
        messages: fc.constant([message]),
        trace: fc.constant({ traceparent: '00-a-b-01' }),
      },
      { requiredKeys: ['op'] },
    ),
  );
  fc.assert(
    fc.property(operation, (given) => {
      const json = JSON.parse(JSON.stringify(given));
      const made = plainOperation(json);
      if (made === undefined) return;
      plain += 1;
      const parsedWhole = BatchOperation.safeParse(json);
      expect(parsedWhole.error).toBeUndefined();
      const data = parsedWhole.data;
      expect(made).toEqual(data);
      // Stored as text: there the order of members shows.
      if (made.op === 'prepare' && data?.op === 'prepare') {
        expect(JSON.stringify(made.messages)).toBe(JSON.stringify(data.messages));
      }
    }),
    { numRuns: 2_000 },
  );
  expect(plain).toBeGreaterThan(100);
  expect(plainOperation({ op: 'commit', id: ID, more: 1 })).toBeUndefined();
  expect(plainOperation({ op: 'commit', id: ID })).toEqual({ op: 'commit', id: ID });
});

test('a plain prepare is what its schema makes of it', () => {
  let plain = 0;
  fc.assert(
    fc.property(anyRequest, fc.constantFrom(ID, undefined, '1'), (request, id) => {
      const given = JSON.parse(JSON.stringify({ id, producerGroup: 'accounts', ...request }));
      const made = plainPrepareRequest(given);
      if (made === undefined) return;
      plain += 1;
      const whole = PrepareRequest.safeParse(given);
      expect(whole.error).toBeUndefined();
      expect(made).toEqual(whole.data);
    }),
    { numRuns: 2_000 },
  );
  expect(plain).toBeGreaterThan(50);
  const prepare = { id: ID, producerGroup: 'accounts', messages: [message] };
  expect(plainPrepareRequest(prepare)).toBeDefined();
  expect(plainPrepareRequest({ ...prepare, op: 'prepare' })).toBeUndefined();
  expect(plainPrepareRequest({ ...prepare, trace: {} })).toBeUndefined();
});

test('data that nests too deep is not plain', () => {
  const nested = (levels: number): unknown => (levels === 0 ? 1 : { a: nested(levels - 1) });
  const prepare = (levels: number) => ({
    op: 'prepare',
    id: ID,
    producerGroup: 'accounts',
    messages: [{ topic: 'user', data: nested(levels) }],
  });
  expect(plainOperation(prepare(LIMITS.dataDepthMax))).toBeDefined();
  expect(plainOperation(prepare(LIMITS.dataDepthMax + 1))).toBeUndefined();
});

test('what leaves data to the commit, and the commit that brings it, are left to the schema', () => {
  const messages = [{ topic: 'user', dataAtCommit: true }];
  expect(plainPrepare({ messages })).toBeUndefined();
  expect(plainPrepareRequest({ id: ID, producerGroup: 'accounts', messages })).toBeUndefined();
  const prepare = { op: 'prepare', id: ID, producerGroup: 'accounts', messages };
  expect(plainOperation(prepare)).toBeUndefined();
  expect(BatchOperation.parse(prepare)).toMatchObject({ messages });
  const commit = { op: 'commit', id: ID, messageData: [{ number: 0, data: 1 }] };
  expect(plainOperation(commit)).toBeUndefined();
  expect(BatchOperation.parse(commit)).toEqual(commit);
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

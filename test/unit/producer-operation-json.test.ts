import {
  BatchOperation,
  type ErrorCode,
  EscrowError,
  isEscrowError,
  LIMITS,
  type OpenWord,
  PrepareRequest,
  parse,
  SendRequest,
  TransactionId,
} from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  type Operation,
  type PrepareOptions,
  prepareOperation,
  sendOperation,
  verdictOperation,
} from '../../producer-sdk/src/client/operation-json.js';
import { anyRequest, ID, message } from '../support/any-request.js';

const TRACE = { traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01' };

const WRITING = { producerGroup: 'accounts', transactionBytesMax: LIMITS.transactionBytesMax };

/** What a call ends with: its value, or the code that it is refused with. */
function outcome<T>(call: () => T): { value: T } | { code: OpenWord<ErrorCode> } {
  try {
    return { value: call() };
  } catch (error) {
    if (isEscrowError(error)) return { code: error.code };
    throw error;
  }
}

const identity = fc.record({
  id: fc.constantFrom(undefined, ID, ID, ID, ID.toUpperCase(), 'order-1', 42),
  trace: fc.constantFrom(undefined, TRACE),
});

test('what is written means to the broker what the schema makes of the request, and nothing else is refused', () => {
  const written = { prepare: 0, send: 0 };
  fc.assert(
    fc.property(anyRequest, identity, fc.boolean(), (request, { id, trace }, isSend) => {
      const [op, write, schema] = isSend
        ? (['send', sendOperation, SendRequest] as const)
        : (['prepare', prepareOperation, PrepareRequest] as const);
      // Wrong requests are the point: the types would not let them be written.
      const given = { ...request, id, ...(trace === undefined ? {} : { trace }) } as PrepareOptions;
      const got = outcome((): Operation => write(WRITING, given));
      const wanted = outcome(() =>
        parse<object>(schema, { ...request, id: id ?? ID, producerGroup: 'accounts' }, 'it'),
      );
      if ('code' in got || 'code' in wanted) {
        // The id is looked at first, so that its code comes before that of another field.
        const ofId = outcome(() => parse(TransactionId, id ?? ID, 'id'));
        expect(got).toEqual('code' in ofId ? ofId : wanted);
        return;
      }
      written[op] += 1;
      const operation = got.value;
      const onTheWire = BatchOperation.parse(JSON.parse(operation.json));
      const expected = { ...wanted.value, op, id: operation.id, trace };
      expect(onTheWire).toEqual(JSON.parse(JSON.stringify(expected)));
      expect(operation).toMatchObject({ op, bytes: Buffer.byteLength(operation.json) });
      if (id !== undefined) expect(operation.id).toBe(ID);
    }),
    { numRuns: 1_000 },
  );
  // Otherwise the property would hold of nothing.
  expect(Math.min(written.prepare, written.send)).toBeGreaterThan(20);
});

test('a request without an id gets one of its own, of version 7', () => {
  const ids = Array.from({ length: 100 }, () => {
    const operation = prepareOperation(WRITING, { messages: [message] });
    expect(BatchOperation.parse(JSON.parse(operation.json)).id).toBe(operation.id);
    return operation.id;
  });
  expect(new Set(ids).size).toBe(100);
});

test('a verdict is written with its id in the one spelling', () => {
  for (const op of ['commit', 'rollback'] as const) {
    const operation = verdictOperation(op, ID.toUpperCase());
    expect(JSON.parse(operation.json)).toEqual({ op, id: ID });
    expect(operation).toMatchObject({ op, id: ID, bytes: Buffer.byteLength(operation.json) });
    expect(() => verdictOperation(op, `${ID}"`)).toThrow(EscrowError);
  }
});

test.each([
  ['ASCII', 'x'],
  ['characters of three bytes', '漢'],
])('an operation may be as large as its limit and no byte larger, in %s', (_, character) => {
  const write = (data: string) =>
    sendOperation(WRITING, { id: ID, messages: [{ topic: 'user', data }] });
  const room = LIMITS.transactionBytesMax - write('').bytes;
  const width = Buffer.byteLength(character);
  const full = character.repeat(room / width) + 'x'.repeat(room % width);
  expect(write(full).bytes).toBe(LIMITS.transactionBytesMax);
  expect(outcome(() => write(`${full}x`))).toEqual({ code: 'BODY_TOO_LARGE' });
});

test('data that JSON has no words for is refused before it is sent', () => {
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const hostile = {
    toJSON() {
      throw new TypeError('not me');
    },
  };
  for (const data of [circular, 1n, { deep: [1n] }, hostile]) {
    const write = () => prepareOperation(WRITING, { messages: [{ topic: 'user', data }] });
    expect(outcome(write)).toEqual({ code: 'INVALID_REQUEST' });
  }
});

test('U17: an operation may be as large as the producer is told, and the refusal names both settings', () => {
  const write = (transactionBytesMax: number) =>
    sendOperation(
      { producerGroup: 'accounts', transactionBytesMax },
      { messages: [{ topic: 'user', data: 'x'.repeat(3 * 1024 * 1024) }] },
    );
  expect(write(4 * 1024 * 1024).bytes).toBeGreaterThan(3 * 1024 * 1024);
  expect(() => write(LIMITS.transactionBytesMax)).toThrow(
    /transactionBytesMax of the producer.*ESCROW_TRANSACTION_BYTES_MAX of the broker/,
  );
});

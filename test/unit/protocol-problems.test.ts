import {
  ERRORS,
  type ErrorCode,
  EscrowError,
  fromProblem,
  isEscrowError,
  Problem,
  toProblem,
} from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';

const CODES = Object.keys(ERRORS) as ErrorCode[];

const anError = fc
  .record({
    code: fc.constantFrom(...CODES),
    message: fc.string(),
    fields: fc.array(fc.record({ path: fc.string(), message: fc.string() })),
    details: fc.dictionary(fc.constantFrom('id', 'state', 'decision', 'limit'), fc.jsonValue(), {
      noNullPrototype: true,
    }),
  })
  .map(({ code, message, ...rest }) => new EscrowError(code, message, rest));

/** What JSON makes of a number, such as -0. */
const overTheWire = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

test('an error that went over the wire is the same error at the other end', () => {
  fc.assert(
    fc.property(anError, (error) => {
      const arrived = fromProblem(Problem.parse(overTheWire(toProblem(error))));
      expect(arrived.code).toBe(error.code);
      expect(arrived.message).toBe(error.message);
      expect(arrived.fields).toEqual(error.fields);
      expect(arrived.details).toEqual(overTheWire(error.details));
      expect(arrived.retryable).toBe(error.retryable);
      expect(arrived.status).toBe(error.status);
      expect(isEscrowError(arrived)).toBe(true);
    }),
  );
});

test('details never overwrite what a problem document says about itself', () => {
  const details = { code: 'INTERNAL_ERROR', status: 200, retryable: true, detail: 'fine' };
  const problem = toProblem(new EscrowError('STATE_CONFLICT', 'it is rolledBack', { details }));
  expect(problem).toMatchObject({
    type: 'urn:escrowmq:error:STATE_CONFLICT',
    code: 'STATE_CONFLICT',
    status: 409,
    retryable: false,
    detail: 'it is rolledBack',
  });
});

test('after how long to ask again arrives in the details', () => {
  const details = { retryAfterSeconds: 3 };
  const error = new EscrowError('BROKER_BUSY', 'the queue is full', { details });
  const arrived = fromProblem(Problem.parse(overTheWire(toProblem(error))));
  expect(arrived.details).toEqual(details);
});

test('the cause of an error stays inside', () => {
  const cause = new Error('password=secret');
  const error = new EscrowError('STORE_UNAVAILABLE', 'the store is away', { cause });
  expect(error.cause).toBe(cause);
  expect(JSON.stringify(toProblem(error))).not.toContain('secret');
});

test('an error without a cause has none, not even an undefined one', () => {
  expect('cause' in new EscrowError('INTERNAL_ERROR', 'x')).toBe(false);
});

test.each([
  ['a code that is no text', { code: 7 }],
  ['no detail', { detail: undefined }],
  ['a status that is no number', { status: '409' }],
  ['a time that is no number', { retryAfterSeconds: '1' }],
])('a document with %s is no problem of ours', (_, changes) => {
  const problem = toProblem(new EscrowError('STATE_CONFLICT', 'x'));
  expect(Problem.safeParse({ ...problem, ...changes }).success).toBe(false);
});

test.each([new Error('x'), { name: 'EscrowError', code: 'INTERNAL_ERROR' }, null, 'EscrowError'])(
  'no EscrowError: %p',
  (value) => {
    expect(isEscrowError(value)).toBe(false);
  },
);

test('every status is one that HTTP has, or 0 for what never goes over HTTP', () => {
  for (const code of CODES) {
    const { status } = ERRORS[code];
    expect([code, status === 0 || (status >= 400 && status < 600)]).toEqual([code, true]);
  }
});

test('what the same request can not repair is not retryable, and what a broker lacks for a while is', () => {
  for (const code of CODES) {
    const { status, retryable } = ERRORS[code];
    // 408: the client was too slow this time.
    if (status >= 400 && status < 500 && status !== 408)
      expect([code, retryable]).toEqual([code, false]);
    if (status >= 500) expect([code, retryable]).toEqual([code, true]);
  }
});

import { BatchAnswer, EscrowError } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type { HttpDeps } from '../../broker/src/http/deps.js';
import { createHttpServer } from '../../broker/src/http/server.js';
import {
  type FakeDeps,
  fakeDeps,
  ID,
  KEYS,
  OTHER_GROUP,
  OWN_GROUP,
  PREPARE,
  UNKNOWN_ID,
} from '../support/http-deps.js';

const OTHER_ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c073990';

async function batch(
  deps: HttpDeps,
  operations: unknown[],
  options: { key?: string; transactionBytesMax?: number; headers?: Record<string, string> } = {},
) {
  const { transactionBytesMax } = options;
  const server = createHttpServer(deps, {
    apiKeys: options.key === undefined ? [] : KEYS,
    ...(transactionBytesMax === undefined ? {} : { transactionBytesMax }),
  });
  const response = await server.inject({
    method: 'POST',
    url: '/v1/batch',
    payload: { operations },
    headers: {
      ...options.headers,
      ...(options.key === undefined ? {} : { authorization: `Bearer ${options.key}` }),
    },
  });
  await server.close();
  expect(response.statusCode).toBe(200);
  return BatchAnswer.parse(response.json()).results;
}

const codes = (results: BatchAnswer['results']) =>
  results.map(({ status, problem }) => problem?.code ?? status);

const names = (deps: FakeDeps) => deps.calls.map(([name]) => name);

test('each operation answers in its place, with the status it would have had alone', async () => {
  const results = await batch(fakeDeps(), [
    { op: 'prepare', ...PREPARE },
    { op: 'commit', id: ID },
    { op: 'rollback', id: UNKNOWN_ID },
    { op: 'send', ...PREPARE, id: OTHER_ID },
  ]);
  expect(codes(results)).toEqual([201, 200, 'TRANSACTION_NOT_FOUND', 201]);
  expect(results[0]?.answer).toEqual({ id: ID, state: 'prepared' });
  expect(results[2]).toMatchObject({ status: 404, problem: { status: 404 } });
});

test('a wrong operation fails alone, and the others run', async () => {
  const deps = fakeDeps();
  const results = await batch(deps, [
    { op: 'commit', id: ID },
    null,
    { op: 'park', id: ID },
    { op: 'commit', id: 'order-1' },
    { op: 'prepare', ...PREPARE, messages: [] },
    { op: 'rollback', id: ID, reason: 'none' },
    { op: 'send', ...PREPARE },
  ]);
  expect(codes(results)).toEqual([
    200,
    'INVALID_REQUEST',
    'INVALID_REQUEST',
    'INVALID_ID',
    'INVALID_REQUEST',
    'UNKNOWN_FIELD',
    201,
  ]);
  expect(results[3]?.problem?.detail).toContain('operation 3');
  expect(results[2]?.problem?.detail).toContain("'prepare' | 'send' | 'commit' | 'rollback'");
  expect(names(deps)).toEqual(['decide', 'send']);
});

test('the engine gets the request with its defaults filled in', async () => {
  const deps = fakeDeps();
  await batch(deps, [{ op: 'prepare', ...PREPARE }]);
  expect(deps.calls[0]?.[1]).toMatchObject({ id: ID, businessKeys: [], expects: [] });
});

test('operations on one id run one after another, in the order given', async () => {
  const log: string[] = [];
  const slowly = async (name: string) => {
    log.push(`${name} begins`);
    // Long enough for any other operation to overtake this one, if it could.
    for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    log.push(`${name} ends`);
  };
  const deps = fakeDeps({
    prepare: async () => {
      await slowly('prepare');
      throw new EscrowError('BROKER_BUSY', 'the queue is full');
    },
    decide: async ({ decision }) => {
      await slowly(decision);
      return { id: ID, state: 'committed' };
    },
  });
  const results = await batch(deps, [
    { op: 'prepare', ...PREPARE },
    { op: 'commit', id: ID.toUpperCase() },
    { op: 'rollback', id: ID },
  ]);
  expect(codes(results)).toEqual(['BROKER_BUSY', 200, 200]);
  expect(log).toEqual([
    'prepare begins',
    'prepare ends',
    'commit begins',
    'commit ends',
    'rollback begins',
    'rollback ends',
  ]);
});

test('operations on different ids are all under way before the first has ended', async () => {
  let underWay = 0;
  let release = () => {};
  const allUnderWay = new Promise<void>((resolve) => {
    release = resolve;
  });
  const decide = async ({ id }: { id: string }) => {
    underWay++;
    if (underWay === 100) release();
    await allUnderWay;
    return { id, state: 'committed' as const };
  };
  const operations = Array.from({ length: 100 }, (_, n) => ({
    op: 'commit',
    id: `0198f3c2-7a10-7cc3-98c4-${String(n).padStart(12, '0')}`,
  }));
  const results = await batch(fakeDeps({ decide }), operations);
  expect(results.map((result) => result.answer?.id)).toEqual(operations.map(({ id }) => id));
});

test('each operation is authorised by itself', async () => {
  const deps = fakeDeps();
  const results = await batch(
    deps,
    [
      { op: 'prepare', ...PREPARE, producerGroup: OWN_GROUP },
      { op: 'prepare', ...PREPARE, producerGroup: OTHER_GROUP },
      { op: 'send', ...PREPARE, producerGroup: OTHER_GROUP },
      { op: 'commit', id: ID },
    ],
    { key: 'own-key' },
  );
  expect(codes(results)).toEqual([201, 'FORBIDDEN', 'FORBIDDEN', 200]);
  expect(deps.calls.at(-1)).toEqual([
    'decide',
    { id: ID, decision: 'commit', producerGroup: OWN_GROUP },
  ]);
});

test("a batch does not reach another group's transaction", async () => {
  const results = await batch(fakeDeps(), [{ op: 'commit', id: ID }], { key: 'other-key' });
  expect(codes(results)).toEqual(['TRANSACTION_NOT_FOUND']);
});

test('one operation is held to the limit of one transaction', async () => {
  const large = { op: 'prepare', ...PREPARE, messages: [{ topic: 't', data: 'x'.repeat(2000) }] };
  const deps = fakeDeps();
  const results = await batch(deps, [large, { op: 'commit', id: ID }], {
    transactionBytesMax: 1000,
  });
  expect(codes(results)).toEqual(['BODY_TOO_LARGE', 200]);
  expect(results[0]?.problem).toMatchObject({ status: 413, bytesMax: 1000 });
});

test('many small operations may together be larger than one', async () => {
  const small = { op: 'send', ...PREPARE };
  const results = await batch(fakeDeps(), Array(50).fill(small), { transactionBytesMax: 1000 });
  expect(new Set(codes(results))).toEqual(new Set([201]));
});

test('a mistake of the broker fails one operation and is reported', async () => {
  const mistake = new Error('undefined is not a function at mysql.ts');
  const deps = fakeDeps({ prepare: () => Promise.reject(mistake) });
  const results = await batch(deps, [
    { op: 'prepare', ...PREPARE },
    { op: 'send', ...PREPARE },
  ]);
  expect(codes(results)).toEqual(['INTERNAL_ERROR', 201]);
  expect(JSON.stringify(results)).not.toContain('mysql');
  expect(deps.failures).toEqual([['POST /v1/batch, prepare', mistake]]);
});

test('an operation that is put off says when to come back, as its header would have', async () => {
  const details = { retryAfterSeconds: 4.2 };
  const hinted = new EscrowError('BROKER_BUSY', 'the queue is full', { details });
  const results = await batch(
    fakeDeps({
      prepare: () => Promise.reject(hinted),
      decide: () => Promise.reject(new EscrowError('STORE_UNAVAILABLE', 'no store')),
      send: () => Promise.reject(new EscrowError('CONTENT_CONFLICT', 'taken')),
    }),
    [
      { op: 'prepare', ...PREPARE },
      { op: 'commit', id: OTHER_ID },
      { op: 'send', ...PREPARE, id: UNKNOWN_ID },
    ],
  );
  expect(codes(results)).toEqual(['BROKER_BUSY', 'STORE_UNAVAILABLE', 'CONTENT_CONFLICT']);
  expect(results.map(({ problem }) => problem?.retryAfterSeconds)).toEqual([5, 1, undefined]);
});

test('the trace of a batch goes with each of its operations', async () => {
  const deps = fakeDeps();
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  await batch(
    deps,
    [
      { op: 'prepare', ...PREPARE },
      { op: 'send', ...PREPARE },
    ],
    {
      headers: { traceparent },
    },
  );
  expect(deps.calls.map((call) => call[2])).toEqual([{ traceparent }, { traceparent }]);
});

describe('U01: one bad operation never harms its neighbours', () => {
  /** As they stand on the wire: an object literal would set a prototype, and has no 1e400. */
  const send = (fields: string) =>
    `{"op":"send","producerGroup":"${OWN_GROUP}","messages":[{"topic":"t",${fields}}]}`;
  const nested = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;

  test.each([
    ['__proto__ in its data', send('"data":{"a":[{"__proto__":1}]}')],
    ['constructor.prototype in its data', send('"data":{"constructor":{"prototype":{}}}')],
    ['__proto__ beside its fields', `{"op":"commit","id":"${ID}","__proto__":{"op":1}}`],
    ['__proto__ among its headers', send('"data":1,"headers":{"__proto__":"a"}')],
    ['a number that is Infinity once it is read', send('"data":1e400')],
    ['half of a surrogate pair', send('"data":"\\ud800"')],
    ['data that nests 200,000 levels deep', send(`"data":${nested}`)],
    [
      'a mistake in millions of characters (S22)',
      send(`"dataBase64":"${'A'.repeat(5_000_000)}!AAA"`),
    ],
  ])('%s', async (_, bad) => {
    const deps = fakeDeps();
    const server = createHttpServer(deps, { apiKeys: [], transactionBytesMax: 8_000_000 });
    const good = JSON.stringify({ op: 'prepare', ...PREPARE });
    const response = await server.inject({
      method: 'POST',
      url: '/v1/batch',
      headers: { 'content-type': 'application/json' },
      payload: `{"operations":[${good},${bad},{"op":"commit","id":"${ID}"}]}`,
    });
    await server.close();
    const { results } = BatchAnswer.parse(response.json());
    expect(results.map(({ status }) => status)).toEqual([201, 400, 200]);
    expect(deps.failures).toEqual([]);
    expect(({} as { op?: unknown }).op).toBeUndefined();
  });

  test('base64 of five million characters without a mistake is taken', async () => {
    const deps = fakeDeps();
    const messages = [{ topic: 't', dataBase64: 'A'.repeat(5_000_000) }];
    const results = await batch(deps, [{ op: 'send', ...PREPARE, messages }], {
      transactionBytesMax: 8_000_000,
    });
    expect(codes(results)).toEqual([201]);
  });
});

test('U01: a poll with an answer that is none is refused, and the other answers are taken', async () => {
  const deps = fakeDeps();
  const server = createHttpServer(deps, { apiKeys: [] });
  const response = await server.inject({
    method: 'POST',
    url: `/v1/producer-groups/${OWN_GROUP}/checks`,
    payload: {
      waitMs: 30_000,
      answers: [
        { id: ID, decision: 'perhaps' },
        { id: OTHER_ID, decision: 'rollback' },
      ],
    },
  });
  await server.close();
  expect(response.json()).toMatchObject({ status: 400, code: 'INVALID_REQUEST' });
  expect(response.json().detail).toContain('answers.0');
  const [name, poll] = deps.calls[0] ?? [];
  expect(name).toBe('pollChecks');
  expect(poll).toMatchObject({ answers: [{ id: OTHER_ID, decision: 'rollback' }] });
  // It takes answers, and waits for no check.
  expect((poll as { signal: AbortSignal }).signal.aborted).toBe(true);
});

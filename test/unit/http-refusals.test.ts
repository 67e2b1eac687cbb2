import { ERRORS, type ErrorCode, EscrowError, LIMITS, Problem } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import { createHttpServer } from '../../broker/src/http/server.js';
import {
  fakeDeps,
  ID,
  type Injected,
  OWN_GROUP,
  PREPARE,
  UNKNOWN_ID,
} from '../support/http-deps.js';

const post = (url: string, payload: unknown): Injected => ({
  method: 'POST',
  url,
  headers: { 'content-type': 'application/json' },
  payload: typeof payload === 'string' ? payload : JSON.stringify(payload),
});
const prepare = (change: object) => post('/v1/transactions', { ...PREPARE, ...change });
const message = (change: object) => prepare({ messages: [{ topic: 't', data: 1, ...change }] });
const verdict = (id: string) => post(`/v1/transactions/${id}/commit`, '');
const poll = (body: object) => post(`/v1/producer-groups/${OWN_GROUP}/checks`, body);
const commit = (body: object) => post(`/v1/transactions/${ID}/commit`, body);

/** JSON of arrays inside arrays. */
const nested = (levels: number) => '['.repeat(levels) + ']'.repeat(levels);
const withData = (data: string) =>
  post(
    '/v1/transactions',
    `{"producerGroup":"${OWN_GROUP}","messages":[{"topic":"t","data":${data}}]}`,
  );

type Line = [what: string, request: Injected, code: ErrorCode, says: string];

const LINES: Line[] = [
  // The body as a whole.
  [
    'a body that is no JSON',
    post('/v1/transactions', '{"id":'),
    'INVALID_JSON',
    'not JSON: SyntaxError',
  ],
  ['an empty body', post('/v1/transactions', ''), 'INVALID_REQUEST', 'expected object'],
  ['a body that is a list', post('/v1/transactions', '[]'), 'INVALID_REQUEST', 'expected object'],
  ['a body that is null', post('/v1/transactions', 'null'), 'INVALID_REQUEST', 'expected object'],
  [
    'a body that is not UTF-8',
    { ...post('/v1/transactions', ''), payload: Buffer.from([0x22, 0xff, 0x22]) },
    'INVALID_JSON',
    'UTF-8',
  ],
  [
    'a key that would reach the prototype',
    withData('{"__proto__":{"admin":true}}'),
    'INVALID_REQUEST',
    'messages.0.data.__proto__: is a key that would reach a prototype',
  ],
  [
    'a constructor with a prototype',
    withData('{"constructor":{"prototype":{"admin":true}}}'),
    'INVALID_REQUEST',
    'messages.0.data.constructor: is a key that would reach a prototype',
  ],
  [
    'a header that would reach the prototype (U01)',
    post(
      '/v1/transactions',
      `{"producerGroup":"${OWN_GROUP}","messages":[{"topic":"t","data":1,"headers":{"__proto__":"a"}}]}`,
    ),
    'INVALID_REQUEST',
    'messages.0.headers.__proto__: is a key that would reach a prototype',
  ],
  [
    'a number that is Infinity once it is read (U20)',
    withData('{"a":[1e400]}'),
    'INVALID_REQUEST',
    'messages.0.data.a.0: is Infinity',
  ],
  [
    'half of a surrogate pair in data (U20)',
    withData('"\\ud83d"'),
    'INVALID_REQUEST',
    'messages.0.data: has half of a surrogate pair',
  ],
  [
    'half of a surrogate pair in a key of data (U20)',
    withData('{"\\udc00":1}'),
    'INVALID_REQUEST',
    'has half of a surrogate pair',
  ],
  [
    'half of a surrogate pair in a header (U20)',
    message({ headers: { tenant: 'a\ud83d' } }),
    'INVALID_REQUEST',
    'well-formed',
  ],
  [
    'half of a surrogate pair in a check context (U20)',
    prepare({ checkContext: '\ud83d' }),
    'INVALID_REQUEST',
    'well-formed',
  ],
  [
    'half of a surrogate pair in a business key (U20)',
    prepare({ businessKeys: ['\ud83d'] }),
    'INVALID_NAME',
    'control',
  ],
  [
    'a commit whose data could not travel (U20)',
    post(`/v1/transactions/${ID}/commit`, '{"messageData":[{"number":0,"data":-1e400}]}'),
    'INVALID_REQUEST',
    'messageData.0.data: is -Infinity',
  ],
  [
    'another content type',
    { ...post('/v1/transactions', '<a/>'), headers: { 'content-type': 'text/xml' } },
    'UNSUPPORTED_MEDIA_TYPE',
    'application/json',
  ],
  [
    'plain text',
    { ...post('/v1/transactions', PREPARE), headers: { 'content-type': 'text/plain' } },
    'UNSUPPORTED_MEDIA_TYPE',
    'application/json',
  ],
  [
    'a content type that is none',
    { ...post('/v1/transactions', PREPARE), headers: { 'content-type': ';;' } },
    'UNSUPPORTED_MEDIA_TYPE',
    'application/json',
  ],
  [
    'a body over the limit',
    withData(`"${'x'.repeat(LIMITS.transactionBytesMax)}"`),
    'BODY_TOO_LARGE',
    `${LIMITS.transactionBytesMax} bytes`,
  ],
  [
    'a batch over its limit',
    post('/v1/batch', ' '.repeat(LIMITS.batchBytesMax + 1)),
    'BODY_TOO_LARGE',
    `${LIMITS.batchBytesMax} bytes`,
  ],

  // Fields.
  ['an unknown field', prepare({ topics: 'user' }), 'UNKNOWN_FIELD', 'topics'],
  ['an unknown field of a message', message({ key: 'a' }), 'UNKNOWN_FIELD', 'key'],
  ['a group that is a number', prepare({ producerGroup: 5 }), 'INVALID_REQUEST', 'expected string'],
  ['an id that is no UUID', prepare({ id: 'order-1' }), 'INVALID_ID', 'version 7'],
  [
    'an id that is a UUID of version 4',
    prepare({ id: '9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d' }),
    'INVALID_ID',
    'version 7',
  ],
  ['no message', prepare({ messages: [] }), 'INVALID_REQUEST', 'at least one message'],
  [
    '33 messages',
    prepare({ messages: Array(33).fill({ topic: 't', data: 1 }) }),
    'TOO_MANY_MESSAGES',
    'at most 32',
  ],
  [
    'both data and dataBase64',
    message({ dataBase64: 'AA==' }),
    'INVALID_REQUEST',
    'data, dataBase64 or dataAtCommit',
  ],
  ['bad base64', message({ data: undefined, dataBase64: 'A A=' }), 'INVALID_BASE64', 'padding'],
  ['a topic of RabbitMQ', message({ topic: 'amq.topic' }), 'INVALID_NAME', 'amq.'],
  ['a line break in a topic', message({ topic: 'a\nb' }), 'INVALID_NAME', 'letters, digits'],
  ['a line break in a group', prepare({ producerGroup: 'a\r\nb' }), 'INVALID_NAME', 'letters'],
  ['a bell in a routing key', message({ routingKey: 'a\u0007' }), 'INVALID_NAME', 'control'],
  ['a NUL in a business key', prepare({ businessKeys: ['a\u0000'] }), 'INVALID_NAME', 'control'],
  ['data that nests too deep', withData(nested(65)), 'INVALID_REQUEST', '64 levels'],
  ['data that nests far too deep', withData(nested(200_000)), 'INVALID_REQUEST', '64 levels'],
  ...[
    'CC',
    'BCC',
    'cc',
    'x-delay',
    'X-Death',
    'escrow-transaction-id',
    'traceparent',
    'user id',
  ].map(
    (name): Line => [
      `the header ${name}`,
      message({ headers: { [name]: 'v' } }),
      'FORBIDDEN_HEADER',
      name,
    ],
  ),

  // Paths and queries.
  ['a verdict on no UUID', verdict('order-1'), 'INVALID_ID', 'version 7'],
  ['a verdict on an unknown id', verdict(UNKNOWN_ID), 'TRANSACTION_NOT_FOUND', UNKNOWN_ID],
  [
    'a verdict with a reason',
    post(`/v1/transactions/${ID}/rollback`, { reason: 'why not' }),
    'UNKNOWN_FIELD',
    'reason',
  ],
  [
    'a commit with data for one message twice',
    commit({ messageData: [0, 0].map((number) => ({ number, data: 1 })) }),
    'INVALID_REQUEST',
    'message 0 has its data twice',
  ],
  ['a commit with no data in it', commit({ messageData: [] }), 'INVALID_REQUEST', 'leave it out'],
  [
    'a commit of message 32',
    commit({ messageData: [{ number: 32, data: 1 }] }),
    'INVALID_REQUEST',
    '31',
  ],
  [
    'a commit with data that nests too deep',
    commit({ messageData: [{ number: 0, data: JSON.parse(nested(65)) }] }),
    'INVALID_REQUEST',
    '64 levels',
  ],
  [
    'a commit with bad base64',
    commit({ messageData: [{ number: 0, dataBase64: 'A' }] }),
    'INVALID_BASE64',
    'padding',
  ],
  [
    'a commit with a topic',
    commit({ messageData: [{ number: 0, data: 1, topic: 'user' }] }),
    'UNKNOWN_FIELD',
    'topic',
  ],
  [
    'a rollback with data',
    post(`/v1/transactions/${ID}/rollback`, { messageData: [{ number: 0, data: 1 }] }),
    'UNKNOWN_FIELD',
    'messageData',
  ],
  [
    'a send that leaves its data open',
    post('/v1/messages', { ...PREPARE, messages: [{ topic: 't', dataAtCommit: true }] }),
    'INVALID_REQUEST',
    'is for a prepare',
  ],
  ['a look at no UUID', { url: '/v1/transactions/1' }, 'INVALID_ID', 'version 7'],
  [
    'a look at an unknown id',
    { url: `/v1/transactions/${UNKNOWN_ID}` },
    'TRANSACTION_NOT_FOUND',
    UNKNOWN_ID,
  ],
  [
    'an action that there is not',
    post(`/v1/transactions/${ID}/resolve`, { action: 'drop', operator: 'a', reason: 'b' }),
    'INVALID_REQUEST',
    '"recheck"',
  ],
  [
    'a resolve without a reason',
    post(`/v1/transactions/${ID}/resolve`, { action: 'commit', operator: 'a' }),
    'INVALID_REQUEST',
    'reason',
  ],
  [
    'a check URL with a password',
    {
      method: 'PUT',
      url: '/v1/producer-groups/a',
      payload: { checkUrls: ['http://a:b@c/'] },
    },
    'INVALID_REQUEST',
    'without user, password',
  ],
  [
    'a group that is not registered',
    { url: '/v1/producer-groups/nobody' },
    'PRODUCER_GROUP_NOT_FOUND',
    'PUT /v1/producer-groups/nobody',
  ],
  ['a group that is no name', { url: '/v1/producer-groups/a%20b' }, 'INVALID_NAME', 'letters'],
  ['a poll too long', poll({ waitMs: 30_001 }), 'INVALID_REQUEST', '30000'],
  ['a poll for 65 checks', poll({ limit: 65 }), 'INVALID_REQUEST', '64'],
  ['a poll for no check', poll({ limit: 0 }), 'INVALID_REQUEST', '>=1'],
  [
    '65 answers',
    poll({ answers: Array(65).fill({ id: ID, decision: 'unknown' }) }),
    'INVALID_REQUEST',
    '64',
  ],
  [
    'an answer that is none',
    poll({ answers: [{ id: ID, decision: 'yes' }] }),
    'INVALID_REQUEST',
    'answers.0 is not valid: decision',
  ],
  [
    'a rollback that brings data',
    poll({ answers: [{ id: ID, decision: 'rollback', messageData: [{ number: 0, data: 1 }] }] }),
    'INVALID_REQUEST',
    'answers.0 is not valid: messageData',
  ],
  ['a poll with more', poll({ group: OWN_GROUP }), 'UNKNOWN_FIELD', '"group"'],
  [
    'a poll without a body',
    post(`/v1/producer-groups/${OWN_GROUP}/checks`, ''),
    'INVALID_REQUEST',
    'expected object',
  ],
  ['a wait too long', { url: '/v1/business-keys/k?waitMs=30001' }, 'INVALID_REQUEST', '30000'],
  ['a wait below zero', { url: '/v1/business-keys/k?waitMs=-1' }, 'INVALID_REQUEST', '>=0'],
  [
    'a wait that is no number',
    { url: '/v1/business-keys/k?waitMs=x' },
    'INVALID_REQUEST',
    'waitMs',
  ],
  [
    'a wait given twice',
    { url: '/v1/business-keys/k?waitMs=1&waitMs=2' },
    'INVALID_REQUEST',
    'waitMs',
  ],
  ['an unknown query', { url: '/v1/business-keys/k?wait=1' }, 'UNKNOWN_FIELD', 'wait'],
  ['a key with a line break', { url: '/v1/business-keys/a%0Ab' }, 'INVALID_NAME', 'control'],
  ['a key too long', { url: `/v1/business-keys/${'k'.repeat(129)}` }, 'INVALID_REQUEST', '128'],
  [
    'a key far too long',
    { url: `/v1/business-keys/${'k'.repeat(5000)}` },
    'INVALID_REQUEST',
    'long',
  ],
  ['a state there is not', { url: '/v1/transactions?state=half' }, 'INVALID_REQUEST', '"parked"'],
  ['a page too large', { url: '/v1/transactions?limit=201' }, 'INVALID_REQUEST', '200'],
  ['a cursor of another kind', { url: '/v1/transactions?cursor=2' }, 'INVALID_ID', 'version 7'],
  ['a path that is not encoded', { url: '/v1/transactions/%E0%A4' }, 'INVALID_REQUEST', 'percent'],
  ['an unknown route', { url: '/v2/transactions' }, 'ROUTE_NOT_FOUND', '/openapi.json'],
  ['an unknown route with a body', post('/v2/messages', 'no'), 'ROUTE_NOT_FOUND', '/openapi.json'],
  [
    'a wrong method',
    { method: 'DELETE', url: `/v1/transactions/${ID}` },
    'ROUTE_NOT_FOUND',
    'it takes GET',
  ],
  ['a wrong method on a batch', { url: '/v1/batch' }, 'ROUTE_NOT_FOUND', 'it takes POST'],

  // Batches as a whole.
  ['an empty batch', post('/v1/batch', { operations: [] }), 'INVALID_REQUEST', 'operations'],
  [
    'a batch of 501',
    post('/v1/batch', { operations: Array(501).fill({}) }),
    'INVALID_REQUEST',
    '500',
  ],
  ['a batch with more', post('/v1/batch', { operations: [{}], a: 1 }), 'UNKNOWN_FIELD', '"a"'],
];

test.each(LINES)('%s is refused with its own code', async (_what, request, code, says) => {
  const deps = fakeDeps();
  const server = createHttpServer(deps, { apiKeys: [] });
  const response = await server.inject(request);
  const problem = Problem.parse(response.json());
  expect(problem).toMatchObject({ code, status: ERRORS[code].status });
  expect(problem.detail).toContain(says);
  expect(response.statusCode).toBe(problem.status);
  expect(response.headers['content-type']).toContain('application/problem+json');
  expect(response.headers['x-content-type-options']).toBe('nosniff');
  expect(deps.failures).toEqual([]);
  await server.close();
});

test('a body of exactly the limit is taken, and one byte more is not', async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: [], transactionBytesMax: 1000 });
  const body = JSON.stringify(PREPARE);
  const fits = await server.inject(post('/v1/transactions', body.padEnd(1000)));
  expect(fits.statusCode).toBe(201);
  const over = await server.inject(post('/v1/transactions', body.padEnd(1001)));
  expect(over.json()).toMatchObject({ code: 'BODY_TOO_LARGE', bytesMax: 1000 });
  await server.close();
});

test('a conflict carries the decision on record', async () => {
  const decision = { decision: 'rollback', at: 5, by: 'operator alice', reason: 'refunded' };
  const decide = async () => {
    throw new EscrowError('STATE_CONFLICT', 'it is rolledBack', { details: { decision } });
  };
  const server = createHttpServer(fakeDeps({ decide }), { apiKeys: [] });
  const response = await server.inject(verdict(ID));
  expect(response.statusCode).toBe(409);
  expect(response.json()).toMatchObject({ code: 'STATE_CONFLICT', decision });
  await server.close();
});

test('a mistake of the broker is reported in full and answered without a word about it', async () => {
  const mistake = new Error('connect ECONNREFUSED mysql://escrow:secret@db');
  const deps = fakeDeps({ prepare: () => Promise.reject(mistake) });
  const server = createHttpServer(deps, { apiKeys: [] });
  const response = await server.inject(prepare({}));
  expect(response.statusCode).toBe(500);
  expect(response.json()).toMatchObject({ code: 'INTERNAL_ERROR', retryable: true });
  expect(response.body).not.toContain('secret');
  expect(deps.failures).toEqual([['POST /v1/transactions', mistake]]);
  await server.close();
});

test('a code that has no status on the wire is a mistake of the broker', async () => {
  const stray = new EscrowError('OUTCOME_UNKNOWN', 'of the SDK');
  const deps = fakeDeps({ view: () => Promise.reject(stray) });
  const server = createHttpServer(deps, { apiKeys: [] });
  const response = await server.inject({ url: `/v1/transactions/${ID}` });
  expect(response.json()).toMatchObject({ code: 'INTERNAL_ERROR', status: 500 });
  expect(deps.failures).toEqual([['GET /v1/transactions/:id', stray]]);
  await server.close();
});

test.each([
  ['without a hint', {}, '1'],
  ['with a hint', { retryAfterSeconds: 4.2 }, '5'],
  ['with a hint that is no time', { retryAfterSeconds: 'soon' }, '1'],
])('503 says when to come back, %s', async (_hint, details, retryAfter) => {
  const busy = new EscrowError('BROKER_BUSY', 'the queue is full', { details });
  const deps = fakeDeps({ send: () => Promise.reject(busy) });
  const server = createHttpServer(deps, { apiKeys: [] });
  const response = await server.inject(post('/v1/messages', PREPARE));
  expect(response.statusCode).toBe(503);
  expect(response.headers['retry-after']).toBe(retryAfter);
  expect(response.json().retryAfterSeconds).toBe(Number(retryAfter));
  expect(deps.failures).toEqual([]);
  await server.close();
});

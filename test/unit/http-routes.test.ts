import { expect, test } from '@jest/globals';
import { createHttpServer } from '../../broker/src/http/server.js';
import { traceContextOf } from '../../broker/src/http/trace-context.js';
import { fakeDeps, ID, type Injected, PREPARE } from '../support/http-deps.js';

async function ask(request: Injected, overrides: Parameters<typeof fakeDeps>[0] = {}) {
  const deps = fakeDeps(overrides);
  const server = createHttpServer(deps, { apiKeys: [] });
  const response = await server.inject(request);
  await server.close();
  return { deps, response };
}

test('a prepare reaches the engine parsed, with its defaults, and is answered 201', async () => {
  const { deps, response } = await ask({
    method: 'POST',
    url: '/v1/transactions',
    payload: { ...PREPARE, id: ID.toUpperCase() },
  });
  expect(response.statusCode).toBe(201);
  expect(response.json()).toEqual({ id: ID, state: 'prepared' });
  const message = { topic: 'user', routingKey: '', data: 1, headers: {}, ifUnrouted: 'retry' };
  const request = { ...PREPARE, businessKeys: [], expects: [], messages: [message] };
  expect(deps.calls).toEqual([['prepare', request, {}]]);
});

test.each(['/v1/transactions', '/v1/messages'])('a repeat at %s is answered 200', async (url) => {
  const repeat = async () => ({ created: false, answer: { id: ID, state: 'prepared' as const } });
  const { response } = await ask(
    { method: 'POST', url, payload: PREPARE },
    { prepare: repeat, send: repeat },
  );
  expect(response.statusCode).toBe(200);
});

test.each<[string, Injected]>([
  ['nothing', {}],
  ['the content type alone', { headers: { 'content-type': 'application/json' } }],
  ['an empty object', { payload: {} }],
])('a verdict may come with %s', async (_what, body) => {
  const { deps, response } = await ask({
    method: 'POST',
    url: `/v1/transactions/${ID}/rollback`,
    ...body,
  });
  expect(response.statusCode).toBe(200);
  expect(deps.calls).toEqual([['decide', { id: ID, decision: 'rollback' }]]);
});

test('a business key may hold whatever can be percent-encoded', async () => {
  const key = `phone/号码?${'中'.repeat(100)}`;
  const { deps, response } = await ask({
    url: `/v1/business-keys/${encodeURIComponent(key)}?waitMs=30000`,
  });
  expect(response.statusCode).toBe(200);
  expect(deps.calls[0]?.slice(0, 3)).toEqual(['waitForBusinessKey', key, 30_000]);
});

test('the longest key of the widest characters fits', async () => {
  const { response } = await ask({
    url: `/v1/business-keys/${encodeURIComponent('中'.repeat(128))}`,
  });
  expect(response.statusCode).toBe(200);
});

test.each([
  [{ ready: true, degraded: true, checks: { rabbitmq: 'down' } }, 200],
  [{ ready: false, degraded: false, checks: { store: 'unreachable' } }, 503],
])('readiness %j is answered %i', async (readiness, status) => {
  const { response } = await ask({ url: '/readyz' }, { readiness: async () => readiness });
  expect(response.statusCode).toBe(status);
  expect(response.json()).toEqual(readiness);
});

test('metrics keep the content type that they come with', async () => {
  const { response } = await ask({ url: '/metrics' });
  expect(response.headers['content-type']).toContain('text/plain; version=0.0.4');
  expect(response.body).toBe('up 1\n');
});

test('answers are not to be sniffed and not to be kept', async () => {
  const { response } = await ask({ url: `/v1/transactions/${ID}` });
  expect(response.headers).toMatchObject({
    'x-content-type-options': 'nosniff',
    'cache-control': 'no-store',
  });
});

const PARENT = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

test.each([
  [{ traceparent: PARENT }, { traceparent: PARENT }],
  [
    { traceparent: PARENT, tracestate: 'a=1,b@c=d e' },
    { traceparent: PARENT, tracestate: 'a=1,b@c=d e' },
  ],
  // A later version that still looks like this one.
  [{ traceparent: `01${PARENT.slice(2)}` }, { traceparent: `01${PARENT.slice(2)}` }],
  [{}, {}],
  [{ tracestate: 'a=1' }, {}],
  [{ traceparent: PARENT.toUpperCase() }, {}],
  [{ traceparent: `ff${PARENT.slice(2)}` }, {}],
  [{ traceparent: `${PARENT}-00` }, {}],
  [{ traceparent: `${PARENT}, ${PARENT}` }, {}],
  [{ traceparent: '00-00000000000000000000000000000000-b7ad6b7169203331-01' }, {}],
  [{ traceparent: '00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01' }, {}],
  [{ traceparent: PARENT, tracestate: 'no member' }, { traceparent: PARENT }],
  [{ traceparent: PARENT, tracestate: `a=${'x'.repeat(600)}` }, { traceparent: PARENT }],
  [{ traceparent: PARENT, tracestate: Array(33).fill('a=1').join() }, { traceparent: PARENT }],
])('of the trace headers %j is kept: %j', (headers, kept) => {
  expect(traceContextOf(headers)).toEqual(kept);
});

test('the trace context of a prepare goes to the engine, and a malformed one refuses nothing', async () => {
  const request = { method: 'POST', url: '/v1/transactions', payload: PREPARE } as const;
  const good = await ask({ ...request, headers: { traceparent: PARENT } });
  expect(good.deps.calls[0]?.[2]).toEqual({ traceparent: PARENT });
  const bad = await ask({ ...request, headers: { traceparent: 'x' } });
  expect(bad.response.statusCode).toBe(201);
  expect(bad.deps.calls[0]?.[2]).toEqual({});
});

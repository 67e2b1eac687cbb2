import { expect, test } from '@jest/globals';
import { createHttpServer } from '../../broker/src/http/server.js';
import {
  fakeDeps,
  type HttpServer,
  ID,
  KEYS,
  OTHER_GROUP,
  OWN_GROUP,
  PREPARE,
} from '../support/http-deps.js';

const CALLERS = {
  noKey: undefined,
  wrongKey: 'Bearer wrong-key',
  ownGroup: 'Bearer own-key',
  otherGroup: 'Bearer other-key',
  operator: 'Bearer operator-key',
} as const;
type Caller = keyof typeof CALLERS;

interface Rule {
  /** What a request that would be right for the own group looks like. */
  url: string;
  payload?: object;
  /** The status for each caller; 401 for those without a key is not repeated here. */
  ownGroup: number;
  otherGroup: number;
  operator: number;
}

const open = (url: string): Rule & { open: true } => ({
  url,
  open: true,
  ownGroup: 200,
  otherGroup: 200,
  operator: 200,
});

/** One rule per route. The test takes the routes from the server: none can be without. */
const RULES: Record<string, Rule & { open?: true }> = {
  'POST /v1/transactions': {
    url: '/v1/transactions',
    payload: PREPARE,
    ownGroup: 201,
    otherGroup: 403,
    operator: 403,
  },
  'GET /v1/transactions': {
    url: `/v1/transactions?producerGroup=${OWN_GROUP}`,
    ownGroup: 200,
    otherGroup: 403,
    operator: 200,
  },
  'POST /v1/transactions/:id/commit': {
    url: `/v1/transactions/${ID}/commit`,
    ownGroup: 200,
    otherGroup: 404,
    operator: 403,
  },
  'POST /v1/transactions/:id/rollback': {
    url: `/v1/transactions/${ID}/rollback`,
    ownGroup: 200,
    otherGroup: 404,
    operator: 403,
  },
  'GET /v1/transactions/:id': {
    url: `/v1/transactions/${ID}`,
    ownGroup: 200,
    otherGroup: 404,
    operator: 200,
  },
  'POST /v1/transactions/:id/resolve': {
    url: `/v1/transactions/${ID}/resolve`,
    payload: { action: 'commit', operator: 'alice', reason: 'asked the customer' },
    ownGroup: 403,
    otherGroup: 403,
    operator: 200,
  },
  'POST /v1/transactions/:id/cancel': {
    url: `/v1/transactions/${ID}/cancel`,
    payload: { reason: 'the order was withdrawn' },
    ownGroup: 200,
    otherGroup: 404,
    // An operator says who he is: see the tests of cancelling.
    operator: 400,
  },
  'POST /v1/messages': {
    url: '/v1/messages',
    payload: PREPARE,
    ownGroup: 201,
    otherGroup: 403,
    operator: 403,
  },
  // The operations are authorised one by one: see the test of the batch.
  'POST /v1/batch': {
    url: '/v1/batch',
    payload: { operations: [{ op: 'commit', id: ID }] },
    ownGroup: 200,
    otherGroup: 200,
    operator: 403,
  },
  'PUT /v1/producer-groups/:group': {
    url: `/v1/producer-groups/${OWN_GROUP}`,
    payload: { checkUrls: [] },
    ownGroup: 201,
    otherGroup: 403,
    operator: 201,
  },
  'POST /v1/producer-groups/:group/checks': {
    url: `/v1/producer-groups/${OWN_GROUP}/checks`,
    payload: {},
    ownGroup: 200,
    otherGroup: 403,
    operator: 403,
  },
  'GET /v1/producer-groups/:group': {
    url: `/v1/producer-groups/${OWN_GROUP}`,
    ownGroup: 200,
    otherGroup: 403,
    operator: 200,
  },
  'GET /v1/business-keys/:key': {
    url: '/v1/business-keys/phone:138',
    ownGroup: 200,
    otherGroup: 200,
    operator: 200,
  },
  'PUT /v1/webhooks/:name': {
    url: '/v1/webhooks/billing',
    payload: { topic: 'orders', url: 'https://billing.example/hook' },
    ownGroup: 403,
    otherGroup: 403,
    operator: 201,
  },
  'GET /v1/webhooks/:name': {
    url: '/v1/webhooks/billing',
    ownGroup: 403,
    otherGroup: 403,
    operator: 200,
  },
  'DELETE /v1/webhooks/:name': {
    url: '/v1/webhooks/billing',
    ownGroup: 403,
    otherGroup: 403,
    operator: 200,
  },
  'GET /v1/webhooks': {
    url: '/v1/webhooks',
    ownGroup: 403,
    otherGroup: 403,
    operator: 200,
  },
  'GET /livez': open('/livez'),
  'GET /readyz': open('/readyz'),
  'GET /metrics': open('/metrics'),
  'GET /openapi.json': open('/openapi.json'),
};

const DENIED: Record<number, string> = {
  401: 'UNAUTHENTICATED',
  403: 'FORBIDDEN',
  404: 'TRANSACTION_NOT_FOUND',
};

/** Every route the server has, but for the pages of the API description. */
async function routesOf(server: HttpServer): Promise<string[]> {
  const routes: string[] = [];
  server.addHook('onRoute', ({ method, url }) => {
    if (url.startsWith('/docs') || method === 'HEAD') return;
    routes.push(`${String(method)} ${url}`);
  });
  await server.ready();
  return routes.sort();
}

test('every route has a rule of access here', async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: KEYS });
  expect(await routesOf(server)).toEqual(Object.keys(RULES).sort());
  await server.close();
});

test('a route without a rule does not register', async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: KEYS });
  expect(() => server.get('/v1/secret', async () => 'told')).toThrow('no rule of access');
  await server.close();
});

const matrix = Object.entries(RULES).flatMap(([route, rule]) =>
  (Object.keys(CALLERS) as Caller[]).map((caller) => {
    const known = caller !== 'noKey' && caller !== 'wrongKey';
    const status = known ? rule[caller] : rule.open ? 200 : 401;
    return { route, rule, caller, status };
  }),
);

test.each(matrix)('$route answers $status to $caller', async ({ route, rule, caller, status }) => {
  const deps = fakeDeps();
  const server = createHttpServer(deps, { apiKeys: KEYS });
  const authorization = CALLERS[caller];
  const response = await server.inject({
    method: route.split(' ')[0] as 'GET',
    url: rule.url,
    ...(rule.payload === undefined ? {} : { payload: rule.payload }),
    ...(authorization === undefined ? {} : { headers: { authorization } }),
  });
  expect(response.statusCode).toBe(status);
  const code = DENIED[status];
  if (code !== undefined) expect(response.json()).toMatchObject({ code });
  // What is refused for its key or role never gets as far as the engine.
  if (status === 401 || status === 403) expect(deps.calls).toEqual([]);
  await server.close();
});

test.each(Object.entries(RULES))('without keys, %s is open to all', async (route, rule) => {
  const server = createHttpServer(fakeDeps(), { apiKeys: [] });
  const response = await server.inject({
    method: route.split(' ')[0] as 'GET',
    url: rule.url,
    ...(rule.payload === undefined ? {} : { payload: rule.payload }),
  });
  expect(response.statusCode).toBeLessThan(300);
  await server.close();
});

test('a producer key is told of and decides only in its own group', async () => {
  const deps = fakeDeps();
  const server = createHttpServer(deps, { apiKeys: KEYS });
  const headers = { authorization: CALLERS.otherGroup };
  await server.inject({ method: 'POST', url: `/v1/transactions/${ID}/commit`, headers });
  await server.inject({ url: '/v1/transactions?state=parked', headers });
  await server.inject({ url: '/v1/business-keys/k', headers });
  expect(deps.calls).toEqual([
    ['decide', { id: ID, decision: 'commit', producerGroup: OTHER_GROUP }],
    ['search', { state: 'parked', limit: 50, producerGroup: OTHER_GROUP }],
    ['waitForBusinessKey', 'k', 0, OTHER_GROUP, expect.anything()],
  ]);
  await server.close();
});

test('an operator looks across all groups', async () => {
  const deps = fakeDeps();
  const server = createHttpServer(deps, { apiKeys: KEYS });
  const headers = { authorization: CALLERS.operator };
  await server.inject({ url: '/v1/transactions', headers });
  await server.inject({ url: '/v1/business-keys/k', headers });
  expect(deps.calls).toEqual([
    ['search', { limit: 50 }],
    ['waitForBusinessKey', 'k', 0, undefined, expect.anything()],
  ]);
  await server.close();
});

test("another group's transaction looks exactly like one that does not exist (F29)", async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: KEYS });
  const other = await server.inject({
    url: `/v1/transactions/${ID}`,
    headers: { authorization: CALLERS.otherGroup },
  });
  const without = createHttpServer(fakeDeps({ view: async () => undefined }), { apiKeys: KEYS });
  const absent = await without.inject({
    url: `/v1/transactions/${ID}`,
    headers: { authorization: CALLERS.ownGroup },
  });
  await without.close();
  expect(other.body).toBe(absent.body);
  await server.close();
});

test('a HEAD request needs the same key as its GET', async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: KEYS });
  const url = `/v1/transactions/${ID}`;
  expect(await server.inject({ method: 'HEAD', url })).toMatchObject({ statusCode: 401 });
  const headers = { authorization: CALLERS.otherGroup };
  expect(await server.inject({ method: 'HEAD', url, headers })).toMatchObject({ statusCode: 404 });
  await server.close();
});

test('an operator who tries to commit is told to resolve', async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: KEYS });
  const response = await server.inject({
    method: 'POST',
    url: `/v1/transactions/${ID}/commit`,
    headers: { authorization: CALLERS.operator },
  });
  expect(response.json().detail).toContain('/resolve');
  await server.close();
});

test.each([
  'own-key',
  'Basic own-key',
  'Bearer',
  'Bearer  ',
  'Bearer own-key extra',
  'Bearer own-ke',
  'Bearer own-key\u00e9',
])('the authorization %j is no key', async (authorization) => {
  const server = createHttpServer(fakeDeps(), { apiKeys: KEYS });
  const response = await server.inject({ url: '/v1/transactions', headers: { authorization } });
  expect(response.statusCode).toBe(401);
  expect(response.headers['www-authenticate']).toBe('Bearer');
  expect(response.body).not.toContain('own-ke');
  await server.close();
});

test('what an operator resolved is written down with the key, not only with the claimed name', async () => {
  const lines: unknown[] = [];
  const observer = { failed: () => {}, info: (...line: unknown[]) => void lines.push(line) };
  const server = createHttpServer(fakeDeps({ observer }), { apiKeys: KEYS });
  await server.inject({
    method: 'POST',
    url: `/v1/transactions/${ID}/resolve`,
    headers: { authorization: CALLERS.operator },
    payload: { action: 'recheck', operator: 'mallory', reason: 'a try' },
  });
  expect(lines).toEqual([
    [
      'an operator resolved a transaction',
      { id: ID, action: 'recheck', operator: 'mallory', key: 'alice' },
    ],
  ]);
  await server.close();
});

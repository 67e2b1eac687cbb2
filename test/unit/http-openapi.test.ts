import { ERRORS } from '@escrowmq/protocol';
import { beforeAll, expect, test } from '@jest/globals';
import { createHttpServer } from '../../broker/src/http/server.js';
import { fakeDeps } from '../support/http-deps.js';

interface Operation {
  operationId: string;
  summary: string;
  description: string;
  tags: string[];
  security: object[];
  parameters?: { in: string; name: string; required: boolean; schema: object }[];
  requestBody?: { required?: boolean };
  responses: Record<string, { description: string; content: Record<string, object> }>;
}
interface Description {
  openapi: string;
  info: { title: string; version: string };
  paths: Record<string, Record<string, Operation>>;
  components: { schemas: Record<string, object>; securitySchemes: Record<string, object> };
}

let description: Description;
let operations: [name: string, operation: Operation][];
const routes: string[] = [];

beforeAll(async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: [] });
  server.addHook('onRoute', ({ method, url }) => {
    if (url.startsWith('/docs') || method === 'HEAD') return;
    routes.push(`${String(method)} ${url.replaceAll(/:(\w+)/g, '{$1}')}`);
  });
  description = (await server.inject('/openapi.json')).json();
  operations = Object.entries(description.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]): [string, Operation] => [
      `${method.toUpperCase()} ${path}`,
      operation,
    ]),
  );
  await server.close();
});

test('the description has every route and no other', () => {
  expect(operations.map(([name]) => name).sort()).toEqual(routes.sort());
});

test('it is OpenAPI 3.1 with a title and a version', () => {
  expect(description.openapi).toMatch(/^3\.1\.\d+$/);
  expect(description.info).toMatchObject({ title: 'EscrowMQ', version: expect.any(String) });
});

test('every operation says what it is, takes and answers', () => {
  const ids = operations.map(([, { operationId }]) => operationId);
  expect(new Set(ids).size).toBe(ids.length);
  for (const [name, operation] of operations) {
    expect(operation).toMatchObject({
      operationId: expect.stringMatching(/^\w+$/),
      summary: expect.stringMatching(/\S/),
      description: expect.stringMatching(/\S/),
      tags: [expect.any(String)],
    });
    const inPath = (operation.parameters ?? []).filter((parameter) => parameter.in === 'path');
    expect(inPath.map((parameter) => `{${parameter.name}}`)).toEqual(name.match(/\{\w+\}/g) ?? []);
    for (const parameter of inPath) expect(parameter.required).toBe(true);
    const statuses = Object.keys(operation.responses);
    expect(statuses.some((status) => status.startsWith('2'))).toBe(true);
    for (const status of statuses) {
      expect(status).toMatch(/^[2-5]\d\d$/);
      expect(operation.responses[status]?.description).toMatch(/\S/);
    }
  }
});

test('every operation lists its problems as problem documents', () => {
  for (const [, operation] of operations) {
    for (const [status, { content, description: said }] of Object.entries(operation.responses)) {
      if (Number(status) < 400) continue;
      expect(content['application/problem+json']).toEqual({
        schema: { $ref: '#/components/schemas/Problem' },
      });
      const listed = [...said.matchAll(/([A-Z_]{4,}): /g)].map(([, code]) => code);
      expect(listed.length).toBeGreaterThan(0);
      for (const code of listed) {
        expect(ERRORS[code as keyof typeof ERRORS]?.status).toBe(Number(status));
      }
    }
  }
});

test('what needs a key says so, by a scheme that there is', () => {
  expect(description.components.securitySchemes).toEqual({
    apiKey: { type: 'http', scheme: 'bearer' },
  });
  for (const [name, { security, responses }] of operations) {
    const needsKey = name.includes(' /v1/');
    expect(security).toEqual(needsKey ? [{ apiKey: [] }] : []);
    expect('401' in responses).toBe(needsKey);
  }
});

test('every reference leads somewhere, and nothing is there that nobody refers to', () => {
  const names = Object.keys(description.components.schemas);
  const referred = [
    ...JSON.stringify(description).matchAll(/"\$ref":"#\/components\/schemas\/(\w+)"/g),
  ].map(([, name]) => name);
  expect([...new Set(referred)].sort()).toEqual(names.sort());
  expect(JSON.stringify(description)).not.toContain('PLACEHOLDER');
});

test('a commit needs no body, and every other operation that takes one does', () => {
  const optional = operations.filter(([, { requestBody }]) => requestBody?.required === false);
  expect(optional.map(([name]) => name)).toEqual(['POST /v1/transactions/{id}/commit']);
  const described = JSON.stringify(optional[0]?.[1].requestBody);
  expect(described).toContain('#/components/schemas/CommitRequest');
  expect(description.components.schemas.MessageInput).toHaveProperty('properties.dataAtCommit');
});

test('the operations of a batch are described one by one', () => {
  const batch = JSON.stringify(description.paths['/v1/batch']?.post?.requestBody);
  expect(batch).toContain('BatchInput');
  expect(JSON.stringify(description.components.schemas.BatchInput)).toContain('BatchOperation');
  const operation = JSON.stringify(description.components.schemas.BatchOperationInput);
  for (const op of ['prepare', 'send', 'commit', 'rollback'])
    expect(operation).toContain(`"${op}"`);
});

test('the page that shows it loads nothing from elsewhere', async () => {
  const server = createHttpServer(fakeDeps(), { apiKeys: [] });
  const page = await server.inject('/docs/');
  expect(page.statusCode).toBe(200);
  expect(page.headers['content-security-policy']).not.toMatch(/https:|upgrade-insecure/);
  for (const [, source] of page.body.matchAll(/(?:src|href)="([^"]+)"/g)) {
    expect(source).toMatch(/^\.\//);
    expect((await server.inject(`/docs/${source}`)).statusCode).toBe(200);
  }
  await server.close();
});

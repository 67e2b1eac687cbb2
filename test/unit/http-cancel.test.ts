import { describe, expect, test } from '@jest/globals';
import { createHttpServer } from '../../broker/src/http/server.js';
import { fakeDeps, ID, KEYS } from '../support/http-deps.js';

const CALLERS = { ownGroup: 'Bearer own-key', operator: 'Bearer operator-key' };

const url = `/v1/transactions/${ID}/cancel`;

describe('cancelling over HTTP', () => {
  async function cancel(payload: object, authorization?: string) {
    const asked: unknown[] = [];
    const lines: unknown[] = [];
    const deps = fakeDeps({
      cancel: async (...args) => {
        asked.push(args);
        return { id: ID, state: 'committed', cancelled: [1] };
      },
      observer: { failed: () => {}, info: (...line: unknown[]) => void lines.push(line) },
    });
    const server = createHttpServer(deps, { apiKeys: authorization === undefined ? [] : KEYS });
    const headers = authorization === undefined ? {} : { authorization };
    const response = await server.inject({ method: 'POST', url, headers, payload });
    await server.close();
    return { response, asked, lines };
  }

  test('a producer cancels within its group', async () => {
    const { response, asked, lines } = await cancel(
      { messages: [1], reason: 'withdrawn' },
      CALLERS.ownGroup,
    );
    expect(response.statusCode).toBe(200);
    expect(response.json()).toEqual({ id: ID, state: 'committed', cancelled: [1] });
    expect(asked).toEqual([[ID, { messages: [1], reason: 'withdrawn' }, 'accounts']]);
    expect(lines).toEqual([]);
  });

  test('an operator cancels in any group, by name, and the key is written down', async () => {
    const request = { reason: 'asked to', operator: 'ann' };
    const { response, asked, lines } = await cancel(request, CALLERS.operator);
    expect(response.statusCode).toBe(200);
    expect(asked).toEqual([[ID, request, undefined]]);
    expect(lines).toEqual([
      ['an operator cancelled messages', { id: ID, operator: 'ann', key: 'alice' }],
    ]);
  });

  test('without keys a name is free', async () => {
    expect((await cancel({ reason: 'x' })).response.statusCode).toBe(200);
    const { lines } = await cancel({ reason: 'x', operator: 'ann' });
    expect(lines).toMatchObject([[expect.any(String), { key: 'none' }]]);
  });

  test.each([
    ['a producer that names an operator', { reason: 'x', operator: 'ann' }, CALLERS.ownGroup, 403],
    ['an operator without a name', { reason: 'x' }, CALLERS.operator, 400],
    ['no reason', {}, CALLERS.ownGroup, 400],
    ['no message', { messages: [], reason: 'x' }, CALLERS.ownGroup, 400],
    ['a message twice', { messages: [1, 1], reason: 'x' }, CALLERS.ownGroup, 400],
    ['a message that no transaction has', { messages: [32], reason: 'x' }, CALLERS.ownGroup, 400],
    ['half a message', { messages: [0.5], reason: 'x' }, CALLERS.ownGroup, 400],
    ['another field', { reason: 'x', force: true }, CALLERS.ownGroup, 400],
  ])('%s is refused', async (_, payload, authorization, status) => {
    const { response, asked } = await cancel(payload, authorization);
    expect(response.statusCode).toBe(status);
    expect(asked).toEqual([]);
  });
});

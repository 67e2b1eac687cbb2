import http from 'node:http';
import type { AddressInfo } from 'node:net';
import {
  type CompensationHandler,
  createCompensationHandler,
  expressCompensationHandler,
  fastifyCompensationPlugin,
  fetchCompensationHandler,
  nestCompensationMiddleware,
  nodeCompensationListener,
} from '@escrowmq/producer';
import { afterEach, describe, expect, test } from '@jest/globals';
import express from 'express';
import fastify from 'fastify';
import type { Pool } from 'mysql2/promise';
import { recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';

const { logger } = recordingLogger();
const ends: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0)) await end();
});

async function listen(server: http.Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  ends.push(() => new Promise((resolve) => server.close(resolve)));
  const { port } = server.address() as AddressInfo;
  return `http://127.0.0.1:${port}/escrow-compensation`;
}

/** Ways to serve a handler; each resolves with the function that sends it a request. */
const MOUNTS: [string, (handler: CompensationHandler) => Promise<typeof fetch>][] = [
  [
    'node:http',
    async (handler) =>
      at(await listen(http.createServer(nodeCompensationListener(handler, { logger })))),
  ],
  [
    'Express',
    async (handler) => {
      const app = express();
      app.post('/escrow-compensation', expressCompensationHandler(handler, { logger }));
      app.use(nestCompensationMiddleware(handler, { logger }));
      return at(await listen(http.createServer(app)));
    },
  ],
  [
    'fetch',
    async (handler) => {
      const handle = fetchCompensationHandler(handler, { logger });
      return (_url, init) => handle(new Request('http://127.0.0.1/', init));
    },
  ],
  [
    'Fastify',
    async (handler) => {
      const app = fastify();
      // biome-ignore lint/nursery/noMisusedPromises: Fastify waits for what a plugin returns.
      await app.register(fastifyCompensationPlugin, { compensation: handler, logger });
      ends.push(() => app.close());
      return at(`${await app.listen({ port: 0, host: '127.0.0.1' })}/escrow-compensation`);
    },
  ],
];

const at =
  (url: string): typeof fetch =>
  (_, init) =>
    fetch(url, init);

describe.each(MOUNTS)('%s', (name, start) => {
  const handler = createCompensationHandler({
    signingSecret: SIGNING_SECRET,
    database: {
      getConnection: async () => {
        throw new Error('down');
      },
    } as unknown as Pool,
    logger,
    compensate: async () => undefined,
  });

  test('it hands the raw body to the handler and its answer back', async () => {
    const send = await start(handler);
    const response = await send('', { method: 'POST', body: '{}' });
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({
      code: 'INVALID_SIGNATURE',
      detail: expect.stringMatching(/^the compensation is not signed/),
    });
  });

  test('what is no compensation is told what one is', async () => {
    const send = await start(handler);
    const large = await send('', { method: 'POST', body: 'x'.repeat(40_000) });
    expect(large.status).toBe(413);
    expect(await large.json()).toMatchObject({
      detail: expect.stringMatching(/^a compensation has at most 32768 bytes/),
    });
    // Fastify knows the path for a POST only.
    if (name === 'Fastify') return;
    const got = await send('', { method: 'GET' });
    expect(got.status).toBe(404);
    expect(await got.json()).toMatchObject({ detail: 'a compensation is a POST, not a GET' });
  });
});

import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from '@jest/globals';
import { Pool } from 'undici';
import { exchange } from '../../producer-sdk/src/client/http-exchange.js';
import { deferred } from '../support/ready.js';
import { until } from '../support/until.js';

const open: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const close of open.splice(0)) await close();
});

type Answer = (request: http.IncomingMessage, response: http.ServerResponse) => void;

const ok: Answer = (_request, response) => response.end('fine');
const silence: Answer = () => {};

/** A server with one answer for each request, in order, and a pool of a single connection to it. */
async function start(...answers: Answer[]) {
  const seen: { paths: string[]; closedConnections: number } = { paths: [], closedConnections: 0 };
  const server = http.createServer((request, response) => {
    seen.paths.push(request.url ?? '');
    (answers.shift() ?? ok)(request, response);
  });
  server.on('connection', (socket) => {
    socket.on('close', () => {
      seen.closedConnections += 1;
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const pool = new Pool(`http://127.0.0.1:${port}`, { connections: 1 });
  open.push(
    () => pool.destroy(),
    () =>
      new Promise((resolve) => {
        server.close(resolve);
        server.closeAllConnections();
      }),
  );
  const get = (path: string, limitMs: number) => exchange(pool, { method: 'GET', path }, limitMs);
  return { seen, pool, get };
}

test('an answer arrives whole, with its status and headers, however it was cut up', async () => {
  const bytes = Buffer.from('{"name":"漢字"}');
  const { pool } = await start((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      response.writeHead(503, { 'retry-after': '7', echo: Buffer.concat(chunks).toString() });
      // Cut in the middle of a character.
      response.write(bytes.subarray(0, 10));
      setImmediate(() => response.end(bytes.subarray(10)));
    });
  });
  const sent = { method: 'POST', path: '/', body: 'said' } as const;
  const answer = await exchange(pool, sent, 5_000);
  expect(answer).toMatchObject({ status: 503, text: bytes.toString() });
  expect(answer.headers).toMatchObject({ 'retry-after': '7', echo: 'said' });
});

test.each<[string, Answer]>([
  ['never comes', silence],
  ['stops after its headers', (_request, response) => response.writeHead(200).flushHeaders()],
  ['stops in its middle', (_request, response) => response.write('half of')],
  [
    'goes on forever',
    (_request, response) => {
      const drip = setInterval(() => response.write('.'), 5);
      response.on('close', () => clearInterval(drip));
    },
  ],
])('an answer that %s ends at the limit, and its connection is given up', async (_, answer) => {
  const { seen, get } = await start(answer);
  const startedAt = performance.now();
  await expect(get('/slow', 100)).rejects.toThrow('no answer within 100 ms');
  // The rest is the machine's; the drip would go on for ever.
  expect(performance.now() - startedAt).toBeLessThan(5_000);
  await until('the connection is closed', () => seen.closedConnections === 1);
  // The only connection of the pool is free for the next one.
  expect((await get('/next', 5_000)).text).toBe('fine');
  expect(seen.paths).toEqual(['/slow', '/next']);
});

test('the limit counts while it waits for a connection, and what it ended is never sent', async () => {
  const gate = deferred();
  const { seen, get } = await start((_request, response) => {
    void gate.promise.then(() => response.end('first'));
  });
  const first = get('/first', 5_000);
  await until('the first is at the server', () => seen.paths.length === 1);
  await expect(get('/second', 50)).rejects.toThrow('no answer within 50 ms');
  gate.resolve();
  expect((await first).text).toBe('first');
  expect((await get('/third', 5_000)).text).toBe('fine');
  expect(seen.paths).toEqual(['/first', '/third']);
});

test('a lost connection is told at once and in the words of the connection', async () => {
  const { get } = await start((request) => request.socket.destroy());
  await expect(get('/', 60_000)).rejects.toThrow('other side closed');
  const nobody = new Pool('http://127.0.0.1:1');
  open.unshift(() => nobody.destroy());
  await expect(exchange(nobody, { method: 'GET', path: '/' }, 60_000)).rejects.toMatchObject({
    code: 'ECONNREFUSED',
  });
});

test('a pool that closes ends what is under way', async () => {
  const { seen, pool, get } = await start(silence);
  const exchanged = get('/', 60_000);
  const ended = expect(exchanged).rejects.toMatchObject({ code: 'UND_ERR_DESTROYED' });
  await until('it is at the server', () => seen.paths.length === 1);
  await pool.destroy();
  await ended;
});

test('no exchange leaves a timer behind', async () => {
  const timers = () => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;
  const { get } = await start(ok, (request) => request.socket.destroy());
  await get('/warm', 60_000);
  const before = timers();
  await expect(get('/lost', 60_000)).rejects.toThrow();
  for (let count = 0; count < 20; count += 1) await get('/', 60_000);
  expect(timers()).toBeLessThan(before + 10);
});

import net, { type AddressInfo } from 'node:net';
import { networkInterfaces } from 'node:os';
import { EscrowError } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import { listenOn } from '../../broker/src/http/listen.js';
import { createHttpServer, type HttpOptions } from '../../broker/src/http/server.js';
import { describeUnless } from '../support/describe-unless.js';
import { fakeDeps, type HttpServer } from '../support/http-deps.js';
import { until } from '../support/until.js';

const hasIpv6 = Object.values(networkInterfaces())
  .flat()
  .some((each) => each?.address === '::1');
const problem = hasIpv6 ? undefined : 'this machine has no ::1; switch IPv6 on for loopback';

const servers: HttpServer[] = [];
const sockets: net.Socket[] = [];
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) await server.close();
});

async function start(options: Partial<HttpOptions> = {}) {
  const server = createHttpServer(fakeDeps(), { apiKeys: [], ...options });
  servers.push(server);
  await listenOn(server, { host: 'localhost', port: 0 });
  const { port } = server.server.address() as AddressInfo;
  return { server, port };
}

async function connect(port: number, host: string): Promise<net.Socket> {
  const socket = net.connect(port, host);
  sockets.push(socket);
  socket.on('error', () => undefined);
  await new Promise((resolve) => socket.once('connect', resolve));
  return socket;
}

describeUnless(problem)('U13: a broker on localhost listens on both families', () => {
  test.each(['127.0.0.1', '::1'])(
    'a silent connection to %s does not delay a shutdown',
    async (host) => {
      // A grace longer than the test: it must not be what ends it.
      const { server, port } = await start({ connections: { shutdownGraceMs: 60_000 } });
      const socket = await connect(port, host);
      const ended = new Promise((resolve) => socket.once('close', resolve));
      await server.close();
      await ended;
      expect(await fetch(`http://[::1]:${port}/livez`).catch(() => 'refused')).toBe('refused');
    },
  );

  test('an answer in flight on ::1 is given before a shutdown ends', async () => {
    const { server, port } = await start();
    const accepted: net.Socket[] = [];
    server.server.on('connection', (each: net.Socket) => accepted.push(each));
    const socket = await connect(port, '::1');
    let received = '';
    socket.setEncoding('utf8').on('data', (text: string) => {
      received += text;
    });
    socket.write('GET /livez HTTP/1.1\r\nhost: a\r\n');
    await until('half of it has arrived', () => (accepted[0]?.bytesRead ?? 0) > 0);
    const closing = server.close();
    await until('nothing new is accepted', () => !server.server.listening);
    socket.write('\r\n');
    await closing;
    await until('the answer has come', () => received !== '');
    expect(received).toMatch(/^HTTP\/1\.1 503 /);
  });

  test('the limit of connections counts all of them', async () => {
    const { port } = await start({ connections: { connectionsMax: 2 } });
    await connect(port, '::1');
    await connect(port, '127.0.0.1');
    for (const host of ['::1', '127.0.0.1']) {
      const third = await connect(port, host);
      await new Promise((resolve) => third.once('close', resolve));
    }
  });

  test('a request that stalls on ::1 is cut off by the same limits', async () => {
    const { port } = await start({
      connections: { headersTimeoutMs: 100, timeoutsCheckedEveryMs: 20 },
    });
    const socket = await connect(port, '::1');
    socket.resume();
    socket.write('GET /livez HTTP/1.1\r\n');
    await new Promise((resolve) => socket.once('close', resolve));
  });

  test('what is no HTTP is answered on ::1 as well', async () => {
    const { port } = await start();
    const socket = await connect(port, '::1');
    const [answer] = await Promise.all([
      new Promise((resolve) => socket.once('data', (data) => resolve(String(data)))),
      socket.write('nonsense\r\n\r\n'),
    ]);
    expect(answer).toMatch(/^HTTP\/1\.1 400 [\s\S]*application\/problem\+json/);
  });

  test('a port that somebody else has on ::1 is refused, not shared', async () => {
    const taken = net.createServer().listen(0, '::1');
    await new Promise((resolve) => taken.once('listening', resolve));
    const { port } = taken.address() as AddressInfo;
    const server = createHttpServer(fakeDeps(), { apiKeys: [] });
    await expect(listenOn(server, { host: 'localhost', port })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
    await new Promise((resolve) => taken.close(resolve));
  });
});

test('U22: what is closed answers its probes, and everything else with why', async () => {
  let closed: EscrowError | undefined = new EscrowError('STORE_UNAVAILABLE', 'no store yet');
  const { port } = await start({ closedBecause: () => closed });
  const ask = (path: string, init?: RequestInit) => fetch(`http://127.0.0.1:${port}${path}`, init);
  expect((await ask('/livez')).status).toBe(200);
  const body = JSON.stringify({ operations: [] });
  const headers = { 'content-type': 'application/json' };
  for (const answer of [
    await ask('/v1/batch', { method: 'POST', body, headers }),
    await ask('/v1/transactions'),
  ]) {
    expect(answer.status).toBe(503);
    expect(answer.headers.get('retry-after')).toBe('1');
    expect(await answer.json()).toMatchObject({ code: 'STORE_UNAVAILABLE', retryable: true });
  }
  closed = undefined;
  expect((await ask('/v1/transactions')).status).toBe(200);
});

import net, { type AddressInfo } from 'node:net';
import { LIMITS } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import type { HttpDeps } from '../../broker/src/http/deps.js';
import { createHttpServer, type HttpOptions } from '../../broker/src/http/server.js';
import { fakeDeps, type HttpServer, ID, KEYS, PREPARE } from '../support/http-deps.js';
import { until } from '../support/until.js';

interface Client {
  socket: net.Socket;
  /** All that came back so far. */
  readonly received: string;
  readonly closed: boolean;
  send(text: string): void;
}

const open: { servers: HttpServer[]; sockets: net.Socket[] } = { servers: [], sockets: [] };

afterEach(async () => {
  for (const socket of open.sockets.splice(0)) socket.destroy();
  for (const server of open.servers.splice(0)) await server.close();
});

async function start(deps: HttpDeps, options: Partial<HttpOptions> = {}) {
  const server = createHttpServer(deps, { apiKeys: [], ...options });
  open.servers.push(server);
  const accepted: net.Socket[] = [];
  server.server.on('connection', (socket: net.Socket) => accepted.push(socket));
  await server.listen({ host: '127.0.0.1', port: 0 });
  const { port } = server.server.address() as AddressInfo;
  return { server, accepted, connect: () => connect(port) };
}

async function connect(port: number): Promise<Client> {
  const socket = net.connect(port, '127.0.0.1');
  open.sockets.push(socket);
  let received = '';
  let closed = false;
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    received += chunk;
  });
  // A connection that the server cuts may end in a reset; both mean closed.
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
  });
  await new Promise((resolve) => socket.once('connect', resolve));
  return {
    socket,
    get received() {
      return received;
    },
    get closed() {
      return closed;
    },
    send: (text) => void socket.write(text),
  };
}

const get = (path: string) => `GET ${path} HTTP/1.1\r\nhost: a\r\n\r\n`;
const postHead = (path: string, length: number | 'chunked') =>
  `POST ${path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n${
    length === 'chunked' ? 'transfer-encoding: chunked' : `content-length: ${length}`
  }\r\n\r\n`;

const closed = (client: Client) => until('the connection is closed', () => client.closed);
const receives = (client: Client, text: string) =>
  until(`the answer holds ${text}`, () => client.received.includes(text));

/** A promise and the function that resolves it. */
function gate() {
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { released, release };
}

/** Writes chunks of 64 KiB for as long as they are taken; the bytes that were. */
async function streamUntilCut(client: Client): Promise<number> {
  const chunk = `10000\r\n${'x'.repeat(0x10000)}\r\n`;
  let bytes = 0;
  while (!client.closed) {
    bytes += 0x10000;
    if (client.socket.write(chunk)) {
      await new Promise(setImmediate);
      continue;
    }
    await new Promise<void>((resolve) => {
      client.socket.once('drain', resolve);
      client.socket.once('close', resolve);
    });
  }
  return bytes;
}

const MIB = 1024 * 1024;
/** The broker reads on for as long as it could still be an honest mistake. */
const DRAINED_BYTES = LIMITS.batchBytesMax;
/** What sockets and the kernel hold by themselves, in both directions of loopback. */
const IN_FLIGHT_BYTES = 8 * MIB;

test('an endless body without a length is refused at the limit and cut off soon after (F07)', async () => {
  const { connect } = await start(fakeDeps());
  const client = await connect();
  client.send(postHead('/v1/transactions', 'chunked'));
  const bytes = await streamUntilCut(client);
  expect(bytes).toBeLessThan(LIMITS.transactionBytesMax + DRAINED_BYTES + IN_FLIGHT_BYTES);
  expect(client.received).toMatch(/^HTTP\/1\.1 413 /);
  expect(client.received).toContain('"code":"BODY_TOO_LARGE"');
});

test('a chunked body just over the limit is told what the limit is', async () => {
  const { connect } = await start(fakeDeps(), { transactionBytesMax: 1000 });
  const client = await connect();
  client.send(`${postHead('/v1/transactions', 'chunked')}3e9\r\n${'x'.repeat(1001)}\r\n`);
  await receives(client, 'larger than 1000 bytes');
  expect(client.received).toMatch(/^HTTP\/1\.1 413 /);
  expect(client.received).toContain('"code":"BODY_TOO_LARGE"');
});

test('a body whose announced length is over the limit is refused before it is sent', async () => {
  const { connect } = await start(fakeDeps());
  const client = await connect();
  client.send(postHead('/v1/transactions', MIB + 1));
  await receives(client, '"code":"BODY_TOO_LARGE"');
  // Who sends it all the same has read the refusal by then, and may go on.
  client.send('x'.repeat(MIB + 1) + get('/livez'));
  await receives(client, '{"alive":true}');
});

test('who has no key can not keep a connection busy with a body', async () => {
  const { connect } = await start(fakeDeps(), { apiKeys: KEYS });
  const client = await connect();
  client.send(postHead('/v1/batch', 'chunked'));
  expect(await streamUntilCut(client)).toBeLessThan(DRAINED_BYTES + IN_FLIGHT_BYTES);
  expect(client.received).toMatch(/^HTTP\/1\.1 401 /);
});

test('a connection serves request after request', async () => {
  const { connect } = await start(fakeDeps());
  const client = await connect();
  client.send(get('/livez'));
  await receives(client, '{"alive":true}');
  const body = JSON.stringify(PREPARE);
  client.send(postHead('/v1/transactions', body.length) + body);
  await receives(client, '"state":"prepared"');
  // A refusal of a body that was read to its end is no reason to hang up.
  client.send(`${postHead('/v1/transactions', 2)}[]`);
  await receives(client, '"code":"INVALID_REQUEST"');
  client.send(get('/readyz'));
  await receives(client, '"ready":true');
  expect(client.closed).toBe(false);
});

test.each([
  ['headers', 'GET /livez HTTP/1.1\r\nhost: a\r\n', { headersTimeoutMs: 100 }],
  ['body', `${postHead('/v1/transactions', 10)}{`, { requestTimeoutMs: 100, headersTimeoutMs: 99 }],
])('whoever never finishes the %s is cut off (F08)', async (_part, text, limits) => {
  const deps = fakeDeps();
  const { connect } = await start(deps, {
    connections: { ...limits, timeoutsCheckedEveryMs: 20 },
  });
  const client = await connect();
  client.send(text);
  await closed(client);
  expect(client.received).toMatch(/^HTTP\/1\.1 408 /);
  expect(deps.failures).toEqual([]);
});

test.each([
  ['no HTTP', 'hello\r\n\r\n', 'not a well-formed'],
  ['headers without end', `GET / HTTP/1.1\r\na: ${'x'.repeat(20_000)}\r\n\r\n`, 'too large'],
])('%s is answered with a problem document', async (_what, text, says) => {
  const { connect } = await start(fakeDeps());
  const client = await connect();
  client.send(text);
  await closed(client);
  expect(client.received).toMatch(/^HTTP\/1\.1 400 /);
  expect(client.received).toContain('application/problem+json');
  expect(client.received).toContain(says);
});

test('no more connections than the limit are held (F08, F78)', async () => {
  const { connect } = await start(fakeDeps(), { connections: { connectionsMax: 1 } });
  const first = await connect();
  first.send(get('/livez'));
  await receives(first, 'alive');
  const second = await connect();
  await closed(second);
  expect(first.closed).toBe(false);
});

test('a caller who hangs up in the middle of a body is no failure of the broker', async () => {
  const deps = fakeDeps();
  const { server, connect } = await start(deps);
  const requested = new Promise((resolve) => server.server.once('request', resolve));
  const client = await connect();
  client.send(`${postHead('/v1/transactions', 100)}{"id"`);
  await requested;
  client.socket.destroy();
  await until('the server has let go of it', async () => (await connections(server)) === 0);
  expect(deps.failures).toEqual([]);
  expect(deps.calls).toEqual([]);
});

function connections(server: HttpServer): Promise<number> {
  return new Promise((resolve, reject) => {
    server.server.getConnections((error, count) => (error ? reject(error) : resolve(count)));
  });
}

/** Waits for as long as it may, as the engine does. */
function waiting() {
  const signals: AbortSignal[] = [];
  const deps = fakeDeps({
    waitForBusinessKey: (_key, _waitMs, _group, signal) => {
      signals.push(signal);
      return new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason as Error));
      });
    },
  });
  return { deps, signals };
}

test('a wait ends when the caller hangs up', async () => {
  const { deps, signals } = waiting();
  const { connect } = await start(deps);
  const client = await connect();
  client.send(get('/v1/business-keys/k?waitMs=30000'));
  await until('the wait has begun', () => signals.length === 1);
  expect(signals[0]?.aborted).toBe(false);
  client.socket.destroy();
  await until('the wait has ended', () => signals[0]?.aborted === true);
  expect(deps.failures).toEqual([]);
});

test('a wait ends with SHUTTING_DOWN when the broker shuts down', async () => {
  const { deps, signals } = waiting();
  const { server, connect } = await start(deps);
  const client = await connect();
  client.send(get('/v1/business-keys/k?waitMs=30000'));
  await until('the wait has begun', () => signals.length === 1);
  await server.close();
  await closed(client);
  expect(client.received).toMatch(/^HTTP\/1\.1 503 /);
  expect(client.received).toContain('"code":"SHUTTING_DOWN"');
  expect(client.received).toMatch(/retry-after: 1\r\n/);
  expect(deps.failures).toEqual([]);
});

test('a shutdown answers what is in flight, and then hangs up', async () => {
  const { released, release } = gate();
  const deps = fakeDeps({
    decide: async ({ id }) => {
      await released;
      return { id, state: 'committed' };
    },
  });
  const { server, connect } = await start(deps);
  const client = await connect();
  client.send(postHead(`/v1/transactions/${ID}/commit`, 0));
  await until('the commit is in flight', () => deps.calls.length === 1);
  const closing = server.close();
  await until('nothing new is accepted', () => !server.server.listening);
  expect(client.received).toBe('');
  release();
  await closing;
  await closed(client);
  expect(client.received).toMatch(/^HTTP\/1\.1 200 /);
  expect(client.received).toMatch(/connection: close\r\n/i);
  expect(client.received).toContain('"state":"committed"');
});

test('a shutdown does not wait for connections on which nothing happens', async () => {
  // A grace longer than the test: it must not be what ends them.
  const { server, connect } = await start(fakeDeps(), { connections: { shutdownGraceMs: 60_000 } });
  const used = await connect();
  used.send(get('/livez'));
  await receives(used, 'alive');
  const unused = await connect();
  await until('both are connected', async () => (await connections(server)) === 2);
  await server.close();
  await closed(used);
  await closed(unused);
});

test.each([
  ['headers', 'GET /livez HTTP/1.1\r\nhost: a\r\n'],
  ['body', `${postHead('/v1/transactions', 10)}{`],
])('a shutdown does not wait long for who never finishes the %s', async (_part, text) => {
  const { server, accepted, connect } = await start(fakeDeps(), {
    connections: { shutdownGraceMs: 100 },
  });
  const client = await connect();
  client.send(text);
  await until('the part has arrived', () => (accepted[0]?.bytesRead ?? 0) > 0);
  await server.close();
  await closed(client);
});

test('a request that arrives during a shutdown is refused, to be sent elsewhere', async () => {
  const deps = fakeDeps();
  const { server, connect } = await start(deps);
  const client = await connect();
  // Half a request: the connection is busy, so the shutdown leaves it open.
  client.send('GET /v1/transactions HTTP/1.1\r\n');
  const busy = await connect();
  busy.send(get('/livez'));
  await receives(busy, 'alive');
  const closing = server.close();
  await until('nothing new is accepted', () => !server.server.listening);
  client.send('host: a\r\n\r\n');
  await closed(client);
  await closing;
  expect(client.received).toMatch(/^HTTP\/1\.1 503 /);
  expect(client.received).toContain('"code":"SHUTTING_DOWN"');
  expect(client.received).toMatch(/connection: close\r\n/i);
  expect(deps.calls).toEqual([]);
});

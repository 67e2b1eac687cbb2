import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { type AddressInfo, createServer as createTcpServer, type Server } from 'node:net';
import { gzipSync } from 'node:zlib';
import { CheckPolicy, type CheckRequest } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import { Webhook } from 'standardwebhooks';
import type { AskerOptions } from '../../broker/src/callback/asker.js';
import { createAsker } from '../../broker/src/callback/asker.js';
import { createCallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import { newSigningSecret } from '../../broker/src/callback/signature.js';
import type { ProducerGroup } from '../../broker/src/domain/ports.js';
import { until } from '../support/until.js';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const OTHER_ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c073990';
const REQUEST: CheckRequest = {
  id: ID,
  producerGroup: 'accounts',
  checkContext: 'shard-3',
  businessKeys: ['phone:1'],
  preparedAt: 1_700_000_000_000,
  attempt: 2,
};
const COMMIT = { id: ID, decision: 'commit' };

type Handler = (request: IncomingMessage, response: ServerResponse) => void;

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function listen(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/check`;
}

/** A producer's check endpoint that answers as told; all of its connections, open and past. */
async function endpoint(handler: Handler) {
  const server = createServer(handler);
  const seen = { open: 0, opened: 0, requests: 0 };
  server.on('request', () => {
    seen.requests += 1;
  });
  server.on('connection', (socket) => {
    seen.open += 1;
    seen.opened += 1;
    socket.on('close', () => {
      seen.open -= 1;
    });
  });
  const url = await listen(server);
  cleanups.push(async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
  return { url, seen };
}

const says =
  (body: unknown, status = 200): Handler =>
  (_, response) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };

function asker(options: Partial<AskerOptions> = {}) {
  const told: string[] = [];
  const created = createAsker({
    allow: createCallbackPolicy({ allow: '', loopbackAllowed: true }),
    observer: {
      info: (what, facts) => told.push(`${what} ${JSON.stringify(facts)}`),
      failed: (what, error) => told.push(`${what}: ${error}`),
    },
    storeNow: Date.now,
    answerBytesMax: 65_536,
    ...options,
  });
  cleanups.push(() => created.close());
  return Object.assign(created, { told });
}

/** The endpoint answers from this process, which a busy machine may keep waiting for a second. */
const PATIENT_MS = 10_000;
/** Where no answer is to come. */
const HASTY = { timeoutMs: 400 };

function group(checkUrls: string[], policy: Partial<CheckPolicy> = {}): ProducerGroup {
  return {
    name: 'accounts',
    checkUrls,
    compensationUrls: [],
    checkPolicy: CheckPolicy.parse({ timeoutMs: PATIENT_MS, ...policy }),
    version: 0,
    signingSecrets: [newSigningSecret()],
  };
}

test.each(['commit', 'rollback', 'unknown'] as const)(
  'a well-formed %s for the very id is an answer',
  async (decision) => {
    const { url } = await endpoint(says({ id: ID.toUpperCase(), decision }));
    const outcome = await asker().ask(group([`${url}?token=s3cret`]), REQUEST);
    expect(outcome).toEqual({
      kind: 'answered',
      decision,
      endpoint: url,
      tookMs: expect.any(Number),
    });
  },
);

test('a "commit" brings the data that prepare left open, up to the limit', async () => {
  const messageData = [{ number: 0, data: 'x'.repeat(60_000) }];
  const { url } = await endpoint(says({ ...COMMIT, messageData }));
  expect(await asker().ask(group([url]), REQUEST)).toMatchObject({ kind: 'answered', messageData });
  expect(await asker({ answerBytesMax: 60_000 }).ask(group([url]), REQUEST)).toMatchObject({
    kind: 'unanswered',
    detail: 'answer larger than 60000 bytes',
  });
});

test('the question carries the trace of the prepare, and none where the prepare had none', async () => {
  const traces: unknown[] = [];
  const { url } = await endpoint((request, response) => {
    traces.push([request.headers.traceparent, request.headers.tracestate]);
    says(COMMIT)(request, response);
  });
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  await asker().ask(group([url]), REQUEST, { traceparent, tracestate: 'a=1' });
  await asker().ask(group([url]), REQUEST);
  expect(traces).toEqual([
    [traceparent, 'a=1'],
    [undefined, undefined],
  ]);
});

test('the question is the request as JSON, signed so that the old and the new secret verify it', async () => {
  const got: { body: string; headers: IncomingMessage['headers']; method: string | undefined }[] =
    [];
  const { url } = await endpoint((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const { headers, method } = request;
      got.push({ body: Buffer.concat(chunks).toString(), headers, method });
      says(COMMIT)(request, response);
    });
  });
  const rotating = { ...group([url]), signingSecrets: [newSigningSecret(), newSigningSecret()] };
  await asker().ask(rotating, REQUEST);
  const { body, headers, method } = got[0]!;
  expect(method).toBe('POST');
  expect(JSON.parse(body)).toEqual(REQUEST);
  expect(headers).toMatchObject({
    'user-agent': 'escrowmq-broker',
    'content-type': 'application/json',
    'accept-encoding': 'identity',
    'webhook-id': `check_${ID}_2`,
  });
  for (const secret of rotating.signingSecrets) {
    const signed = headers as Record<string, string>;
    expect(new Webhook(secret).verify(body, signed)).toEqual(REQUEST);
    expect(() => new Webhook(secret).verify(`${body} `, signed)).toThrow();
  }
  expect(() =>
    new Webhook(newSigningSecret()).verify(body, headers as Record<string, string>),
  ).toThrow('No matching signature');
});

test('the time that is signed is of the clock that the asker is given', async () => {
  const signed: unknown[] = [];
  const { url } = await endpoint((request, response) => {
    signed.push(request.headers['webhook-timestamp']);
    says(COMMIT)(request, response);
  });
  for (const now of [1_700_000_000_999, 1_600_000_000_000]) {
    await asker({ storeNow: () => now }).ask(group([url]), REQUEST);
  }
  expect(signed).toEqual(['1700000000', '1600000000']);
});

const redirect =
  (status: number): Handler =>
  (_, response) => {
    response.writeHead(status, { location: 'http://u:p@other.example/path?token=s3cret' }).end();
  };
const typed =
  (type: string | undefined, body: string | Buffer, more = {}): Handler =>
  (_, response) => {
    response.writeHead(200, { ...(type && { 'content-type': type }), ...more }).end(body);
  };
const json = 'application/json';

const NO_ANSWERS: [string, Handler, string][] = [
  ['301', redirect(301), 'HTTP 301: redirect to http://other.example, which is not followed'],
  ['302', redirect(302), 'HTTP 302: redirect to http://other.example, which is not followed'],
  ['303', redirect(303), 'HTTP 303: redirect to http://other.example, which is not followed'],
  ['307', redirect(307), 'HTTP 307: redirect to http://other.example, which is not followed'],
  ['308', redirect(308), 'HTTP 308: redirect to http://other.example, which is not followed'],
  ['304 without a target', says('', 304), 'HTTP 304: redirect to nowhere, which is not followed'],
  ['404 with a rollback in it', says({ id: ID, decision: 'rollback' }, 404), 'HTTP 404'],
  [
    '401',
    says('', 401),
    'HTTP 401: the endpoint refused the signature; is the signing secret of its handler the one of the producer group, as registerGroup set or answered it?',
  ],
  ['500', says(COMMIT, 500), 'HTTP 500'],
  ['503', says('', 503), 'HTTP 503'],
  ['201 with an answer in it', says(COMMIT, 201), 'HTTP 201'],
  ['204', says('', 204), 'HTTP 204'],
  ['HTML', typed('text/html', '<h1>Welcome</h1>'), 'content type text/html instead of'],
  ['JSON called HTML', typed('text/html', JSON.stringify(COMMIT)), 'content type text/html'],
  ['no content type', typed(undefined, JSON.stringify(COMMIT)), 'content type none'],
  ['HTML called JSON', typed(json, '<h1>Welcome</h1>'), 'answer is not JSON'],
  ['an empty body', says(''), 'empty answer'],
  ['bytes that are not UTF-8', typed(json, Buffer.from([0x22, 0xff, 0x22])), 'not JSON'],
  ['two answers', says(JSON.stringify(COMMIT).repeat(2)), 'answer is not JSON'],
  ['a bare word', says('"commit"'), 'answer is not exactly'],
  ['null', says('null'), 'answer is not exactly'],
  ['a list', says([COMMIT]), 'answer is not exactly'],
  ['another id', says({ id: OTHER_ID, decision: 'commit' }), 'answered for another id'],
  ['no id', says({ decision: 'commit' }), 'answer is not exactly'],
  ['a field too many', says({ ...COMMIT, note: 's3cret' }), 'answer is not exactly'],
  ['an unknown decision', says({ id: ID, decision: 'COMMIT' }), 'answer is not exactly'],
  [
    'data beside a rollback',
    says({ id: ID, decision: 'rollback', messageData: [{ number: 0, data: 's3cret' }] }),
    'see messageData',
  ],
  [
    'data that would reach a prototype',
    says(
      `{"id":"${ID}","decision":"commit","messageData":[{"number":0,"data":[{"__proto__":{"s3cret":1}}]}]}`,
    ),
    'reach a prototype',
  ],
  [
    'data without a number',
    says({ ...COMMIT, messageData: [{ data: 's3cret' }] }),
    'see messageData.0.number',
  ],
  ['10 MB announced', typed(json, Buffer.alloc(10_000_000, 0x20)), 'answer larger than 65536'],
  [
    '10 MB in chunks',
    typed(json, Buffer.alloc(10_000_000, 0x20), { 'transfer-encoding': 'chunked' }),
    'answer larger than 65536',
  ],
  [
    'a gzip bomb',
    typed(json, gzipSync(Buffer.alloc(20_000_000, 0x20)), { 'content-encoding': 'gzip' }),
    'compressed answer (gzip)',
  ],
  ['silence', () => undefined, 'timed out after 400 ms'],
  [
    'headers and then silence',
    (_, response) => void response.writeHead(200).flushHeaders(),
    'content type none',
  ],
  [
    'JSON headers and then silence',
    (_, response) => void response.writeHead(200, { 'content-type': json }).flushHeaders(),
    'timed out after 400 ms',
  ],
  ['a connection that is dropped', (request) => request.socket.destroy(), 'connection lost'],
];

const policyFor = (detail: string) => (detail.startsWith('timed out') ? HASTY : {});

test.each(NO_ANSWERS)(
  '%s is no answer, and says why (F32, F33, F34)',
  async (_, handler, detail) => {
    const { url } = await endpoint(handler);
    const asking = asker();
    const outcome = await asking.ask(group([url], policyFor(detail)), REQUEST);
    expect(outcome).toMatchObject({
      kind: 'unanswered',
      endpoint: url,
      detail: expect.stringContaining(detail),
    });
    expect(JSON.stringify([outcome, asking.told])).not.toMatch(/s3cret|u:p/);
  },
);

test('none of those answers leaves a connection or a slot taken, or is asked for twice', async () => {
  const endpoints = await Promise.all(NO_ANSWERS.map(([, handler]) => endpoint(handler)));
  const asking = asker();
  const groups = NO_ANSWERS.map(([, , detail], n) => ({
    // Even those that time out must have been called, among so many at once.
    ...group([endpoints[n]!.url], detail.startsWith('timed out') ? { timeoutMs: 3_000 } : {}),
    name: `group-${n}`,
  }));
  await Promise.all(groups.map((each) => asking.ask(each, REQUEST)));
  expect(asking.busyGroups()).toEqual([]);
  await until('every connection is closed', () => endpoints.every(({ seen }) => seen.open === 0));
  expect(endpoints.map(({ seen }) => seen.requests)).toEqual(endpoints.map(() => 1));
});

test('a body without an end is cut off at the limit (F33)', async () => {
  let written = 0;
  const { url, seen } = await endpoint((_, response) => {
    response.writeHead(200, { 'content-type': json });
    const more = () => {
      while (!response.destroyed && response.write(Buffer.alloc(16_384, 0x20))) written += 16_384;
      response.once('drain', more);
    };
    more();
  });
  const outcome = await asker().ask(group([url]), REQUEST);
  expect(outcome).toMatchObject({ detail: 'answer larger than 65536 bytes' });
  await until('the connection is closed', () => seen.open === 0);
  // What was on its way in the buffers of both sockets may come on top.
  expect(written).toBeLessThan(16_000_000);
});

test('the time limit is for all of the answer: a body that drips ends at it (F30)', async () => {
  const { url, seen } = await endpoint((_, response) => {
    response.writeHead(200, { 'content-type': json });
    const drip = setInterval(() => response.write(' '), 20);
    response.on('close', () => clearInterval(drip));
  });
  // A limit for each piece of it would never end: the drip goes on as long as its connection.
  const outcome = await asker().ask(group([url], HASTY), REQUEST);
  expect(outcome).toMatchObject({ detail: 'timed out after 400 ms' });
  expect(outcome.tookMs).toBeGreaterThanOrEqual(399);
  await until('the connection is closed', () => seen.open === 0);
});

test('a port where nobody listens, a name that does not resolve, a resolver that hangs and TLS that is none are no answers (F31)', async () => {
  const { url } = await endpoint(says(COMMIT));
  const gone = createTcpServer();
  const goneUrl = await listen(gone);
  await new Promise((resolve) => gone.close(resolve));
  expect(await asker().ask(group([goneUrl]), REQUEST)).toMatchObject({
    kind: 'unanswered',
    detail: 'no connection: ECONNREFUSED',
  });
  expect(
    await asker({
      resolve: (_, done) => done(Object.assign(new Error('none'), { code: 'ENOTFOUND' }), []),
    }).ask(group(['http://localhost:1/']), REQUEST),
  ).toMatchObject({ kind: 'unanswered', detail: 'host name not resolved: ENOTFOUND' });
  expect(
    await asker({ resolve: () => undefined }).ask(group(['http://localhost:1/'], HASTY), REQUEST),
  ).toMatchObject({ kind: 'unanswered', detail: 'timed out after 400 ms' });
  expect(await asker().ask(group([url.replace('http', 'https')]), REQUEST)).toMatchObject({
    kind: 'unanswered',
    detail: expect.stringContaining('TLS failed'),
  });
});

test('a server that does not speak HTTP is no answer', async () => {
  const server = createTcpServer((socket) => {
    socket.resume().end('220 mail.example ESMTP\r\n');
  });
  const url = await listen(server);
  cleanups.push(() => new Promise((resolve) => server.close(resolve)));
  expect(await asker().ask(group([url]), REQUEST)).toMatchObject({
    kind: 'unanswered',
    detail: expect.stringContaining('does not speak HTTP'),
  });
});

test('a group without check URLs is no answer', async () => {
  expect(await asker().ask(group([]), REQUEST)).toEqual({
    kind: 'unanswered',
    tookMs: 0,
    detail: 'the producer group has no check URL',
  });
});

test('a signing secret that is damaged is no answer and is told to the operator without the secret', async () => {
  const { url } = await endpoint(says(COMMIT));
  const asking = asker();
  const damaged = { ...group([url]), signingSecrets: ['whsec_!!damaged!!'] };
  expect(await asking.ask(damaged, REQUEST)).toMatchObject({
    kind: 'unanswered',
    detail: expect.stringContaining('could not make the call'),
  });
  expect(asking.told).toHaveLength(1);
  expect(asking.told[0]).not.toContain('damaged!!');
});

test('after a call without an answer the next one goes to the next endpoint, and one that answers keeps its turn', async () => {
  const calls: string[] = [];
  const named = (name: string, handler: Handler) =>
    endpoint((request, response) => {
      calls.push(name);
      handler(request, response);
    });
  const a = await named('a', says('', 500));
  const b = await named('b', says('', 404));
  const c = await named('c', says(COMMIT));
  const asking = asker();
  for (let n = 0; n < 5; n += 1) await asking.ask(group([a.url, b.url, c.url]), REQUEST);
  expect(calls).toEqual(['a', 'b', 'c', 'c', 'c']);
});

test('no more checks run at a time than the policy says, and all of them are answered (F39)', async () => {
  let running = 0;
  let most = 0;
  const held: (() => void)[] = [];
  const { url } = await endpoint((request, response) => {
    running += 1;
    most = Math.max(most, running);
    held.push(() => {
      running -= 1;
      says(COMMIT)(request, response);
    });
  });
  const asking = asker();
  const three = group([url], { concurrencyMax: 3 });
  const asks = Array.from({ length: 10 }, () => asking.ask(three, REQUEST));
  await until('three are running', () => held.length === 3);
  expect(asking.busyGroups()).toEqual(['accounts']);
  let answered = 0;
  while (answered < 10) {
    await until('a check is running', () => held.length > 0);
    held.shift()?.();
    answered += 1;
  }
  const outcomes = await Promise.all(asks);
  expect(outcomes.every(({ kind }) => kind === 'answered')).toBe(true);
  expect(most).toBe(3);
  expect(asking.busyGroups()).toEqual([]);
});

test('a check that finds no free slot in the time of an answer gives up without an answer', async () => {
  const { url } = await endpoint(() => undefined);
  const asking = asker();
  const slow = group([url], { concurrencyMax: 1 });
  const first = asking.ask(slow, REQUEST);
  const hurried = group([url], { concurrencyMax: 1, timeoutMs: 100 });
  expect(await asking.ask(hurried, REQUEST)).toEqual({
    kind: 'unanswered',
    tookMs: 0,
    detail: 'no free slot within 100 ms',
  });
  await asking.close();
  expect(await first).toMatchObject({ detail: 'the broker is shutting down' });
});

test('one group that hangs takes nothing from another (F30)', async () => {
  const hanging = await endpoint(() => undefined);
  const well = await endpoint(says(COMMIT));
  const asking = asker();
  const stuck = { ...group([hanging.url]), name: 'stuck' };
  const asks = Array.from({ length: 20 }, () => asking.ask(stuck, REQUEST));
  await until('its slots are taken', () => hanging.seen.open === 8);
  expect(asking.busyGroups()).toEqual(['stuck']);
  expect(await asking.ask(group([well.url]), REQUEST)).toMatchObject({ kind: 'answered' });
  await asking.close();
  await Promise.all(asks);
});

test('the breaker opens after five calls without an answer, probes once and closes on an answer (F31)', async () => {
  let well = false;
  let called = 0;
  const { url } = await endpoint((request, response) => {
    called += 1;
    says(well ? COMMIT : '', well ? 200 : 500)(request, response);
  });
  let time = 0;
  const asking = asker({ now: () => time });
  const one = group([url]);
  for (let n = 0; n < 5; n += 1) await asking.ask(one, REQUEST);
  expect(called).toBe(5);
  expect(await asking.ask(one, REQUEST)).toEqual({
    kind: 'unanswered',
    tookMs: 0,
    detail: 'breaker open after HTTP 500',
  });
  expect(called).toBe(5);
  expect(asking.busyGroups()).toEqual([]);

  time = 5_000;
  const probes = await Promise.all([asking.ask(one, REQUEST), asking.ask(one, REQUEST)]);
  expect(probes.map(({ kind }) => kind)).toEqual(['unanswered', 'unanswered']);
  expect(called).toBe(6);

  time = 14_999;
  await asking.ask(one, REQUEST);
  expect(called).toBe(6);
  well = true;
  time = 15_000;
  expect(await asking.ask(one, REQUEST)).toMatchObject({ kind: 'answered' });
  expect(await asking.ask(one, REQUEST)).toMatchObject({ kind: 'answered' });
  expect(called).toBe(8);
  expect(asking.told.map((line) => line.split(' {')[0])).toEqual([
    'check endpoint stopped answering',
    'check endpoint answers again',
  ]);
});

test('checks that wait for a slot are told at once when the breaker opens', async () => {
  let called = 0;
  const { url } = await endpoint((request, response) => {
    called += 1;
    says('', 500)(request, response);
  });
  const asking = asker();
  const outcomes = await Promise.all(
    Array.from({ length: 30 }, () => asking.ask(group([url], { concurrencyMax: 1 }), REQUEST)),
  );
  expect(called).toBe(5);
  expect(outcomes.filter(({ tookMs }) => tookMs === 0).length).toBeGreaterThanOrEqual(25);
});

test('after close nothing is called and every ask still has its outcome', async () => {
  const { url, seen } = await endpoint(says(COMMIT));
  const asking = asker();
  await asking.close();
  expect(await asking.ask(group([url]), REQUEST)).toMatchObject({
    kind: 'unanswered',
    detail: 'the broker is shutting down',
  });
  expect(seen.opened).toBe(0);
});

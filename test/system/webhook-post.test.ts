import { createServer } from 'node:net';
import { afterAll, afterEach, beforeEach, expect, test } from '@jest/globals';
import { createCallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import { createGuardedAgent } from '../../broker/src/callback/guarded-agent.js';
import { newSigningSecret, signatureHeaders } from '../../broker/src/callback/signature.js';
import { describeFailure } from '../../broker/src/callback/signed-call.js';
import { type PostParts, post } from '../../broker/src/notify/post.js';
import { until } from '../support/until.js';
import { startWebhookEndpoint, status, type WebhookEndpoint } from '../support/webhook-endpoint.js';
import { delivered, storedWebhook } from '../support/webhook-fakes.js';

/** One call to one endpoint, with the parts that the broker makes it with. */

const local = createCallbackPolicy({ allow: '', loopbackAllowed: true });
const agent = createGuardedAgent(local);
let endpoint: WebhookEndpoint;

beforeEach(async () => {
  endpoint = await startWebhookEndpoint();
});
afterEach(() => endpoint.close());
afterAll(() => agent.close());

interface Attempt {
  settings?: object;
  secrets?: string[];
  signal?: AbortSignal;
  parts?: Partial<PostParts>;
}

const failures: unknown[] = [];
const call = ({ settings, secrets, signal, parts }: Attempt = {}) =>
  post(
    {
      webhook: storedWebhook({
        settings: { url: endpoint.url, ...settings },
        signingSecrets: secrets ?? [newSigningSecret()],
      }),
      message: delivered(),
      signal: signal ?? new AbortController().signal,
    },
    {
      agent: agent.dispatcher,
      urlProblem: (url) => local.checkUrlProblem(url),
      sign: signatureHeaders,
      describeFailure,
      failed: (_what, error) => failures.push(error),
      storeNow: Date.now,
      ...parts,
    },
  );

const failed = (detail: string) => ({ kind: 'failed', detail });

test('the status is the whole answer, also of a body that never ends', async () => {
  endpoint.answer = (_post, response) => {
    response.writeHead(200, { 'content-type': 'text/plain' });
    response.write('and so on');
  };
  expect(await call({ settings: { timeoutMs: 30_000 } })).toEqual({ kind: 'delivered' });
});

test('a body that never ends holds its connection no longer than the time limit', async () => {
  let closed = false;
  endpoint.answer = (_post, response) => {
    response.on('close', () => {
      closed = true;
    });
    response.writeHead(200);
    response.write('and so on');
  };
  expect(await call({ settings: { timeoutMs: 2_000 } })).toEqual({ kind: 'delivered' });
  expect(closed).toBe(false);
  await until('its connection is closed', () => closed);
});

test('an endpoint that does not answer in time has failed', async () => {
  endpoint.answer = () => {};
  expect(await call({ settings: { timeoutMs: 150 } })).toEqual(failed('timed out after 150 ms'));
});

test('a host that takes no connection costs no more than the time limit', async () => {
  const waiting = createGuardedAgent(local, () => {});
  try {
    const startedAt = performance.now();
    const outcome = await call({
      settings: { url: 'http://localhost:1/', timeoutMs: 150 },
      parts: { agent: waiting.dispatcher },
    });
    expect(outcome).toEqual(failed('timed out after 150 ms'));
    // Connecting alone may take 5 s.
    expect(performance.now() - startedAt).toBeLessThan(4_500);
  } finally {
    await waiting.close();
  }
});

test('a delivery that is abandoned ends its call', async () => {
  const abandoned = new AbortController();
  endpoint.answer = () => abandoned.abort(new Error('the channel is lost'));
  const outcome = await call({ settings: { timeoutMs: 30_000 }, signal: abandoned.signal });
  expect(outcome).toEqual(failed('the delivery was ended'));
});

test('an endpoint that is not there has failed', async () => {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  const port = typeof address === 'object' ? address?.port : undefined;
  expect(await call({ settings: { url: `http://127.0.0.1:${port}/` } })).toEqual(
    failed('no connection: ECONNREFUSED'),
  );
});

test('a URL that is not allowed any more is not called', async () => {
  const policy = createCallbackPolicy({ allow: '', loopbackAllowed: false });
  const urlProblem = (url: string) => policy.checkUrlProblem(url);
  const outcome = await call({ parts: { urlProblem } });
  expect(outcome).toEqual(
    failed(expect.stringMatching(/^call not allowed: /) as unknown as string),
  );
  expect(endpoint.received).toEqual([]);
});

test('a name that is allowed and resolves to this machine is not called', async () => {
  const policy = createCallbackPolicy({ allow: 'hook.example', loopbackAllowed: false });
  const guarded = createGuardedAgent(policy, (_host, done) =>
    done(null, [{ address: '127.0.0.1', family: 4 }]),
  );
  try {
    const { port } = new URL(endpoint.url);
    const outcome = await call({
      settings: { url: `http://hook.example:${port}/hook` },
      parts: { agent: guarded.dispatcher, urlProblem: (url) => policy.checkUrlProblem(url) },
    });
    expect(outcome).toEqual(
      failed('the loopback address 127.0.0.1 needs a range of its own in ESCROW_CALLBACK_ALLOW'),
    );
    expect(endpoint.received).toEqual([]);
  } finally {
    await guarded.close();
  }
});

test('the time that is signed, and counted from to a Retry-After, is of the clock that is given', async () => {
  const now = Date.parse('Tue, 14 Nov 2023 22:13:20 GMT');
  endpoint.answer = status(503, { 'retry-after': 'Tue, 14 Nov 2023 22:13:50 GMT' });
  const outcome = await call({ parts: { storeNow: () => now } });
  expect(outcome).toMatchObject({ kind: 'later', afterMs: 30_000 });
  expect(endpoint.received[0]?.headers['webhook-timestamp']).toBe('1700000000');
});

test("the broker's own mistake is logged, and the message is tried again", async () => {
  const outcome = await call({ secrets: ['whsec_!!damaged!!'] });
  expect(outcome).toEqual(failed('the broker could not make the call; its log says why'));
  expect(failures).toEqual([new Error('a signing secret is not whsec_ and base64')]);
});

test('one that asks for patience is understood', async () => {
  endpoint.answer = status(429, { 'retry-after': '30' });
  expect(await call()).toEqual({
    kind: 'later',
    afterMs: 30_000,
    detail: 'HTTP 429 with Retry-After',
  });
});

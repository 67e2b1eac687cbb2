import type { LookupAddress } from 'node:dns';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CheckPolicy, type CheckRequest } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { createAsker } from '../../broker/src/callback/asker.js';
import type { CallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import { createCallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import type { Resolve } from '../../broker/src/callback/guarded-agent.js';
import { newSigningSecret } from '../../broker/src/callback/signature.js';
import { FORBIDDEN_URLS } from '../unit/callback-forbidden-urls.js';

/*
 * A server of the broker's own machine that must not be reached. It listens on every address, and
 * counts connections and requests; what it would answer is a valid answer.
 */

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const REQUEST: CheckRequest = {
  id: ID,
  producerGroup: 'accounts',
  businessKeys: [],
  preparedAt: 1_700_000_000_000,
  attempt: 1,
};

const secret = { port: 0, connections: 0, requests: 0 };
const server = createServer((_, response) => {
  secret.requests += 1;
  response.writeHead(200, { 'content-type': 'application/json' });
  response.end(JSON.stringify({ id: ID, decision: 'commit' }));
});
server.on('connection', () => {
  secret.connections += 1;
});

beforeEach(async () => {
  await new Promise<void>((resolve) => server.listen(0, resolve));
  Object.assign(secret, {
    port: (server.address() as AddressInfo).port,
    connections: 0,
    requests: 0,
  });
});
afterEach(async () => {
  server.closeAllConnections();
  await new Promise((resolve) => server.close(resolve));
});

/** Asks one URL once, with a new asker. */
async function ask(url: string, allow: CallbackPolicy, resolve?: Resolve) {
  const observer = { info: () => undefined, failed: () => undefined };
  const asker = createAsker({ allow, observer, storeNow: Date.now, ...(resolve && { resolve }) });
  const group = {
    name: 'accounts',
    checkUrls: [url],
    compensationUrls: [],
    checkPolicy: CheckPolicy.parse({ timeoutMs: 10_000 }),
    version: 0,
    signingSecrets: [newSigningSecret()],
  };
  try {
    return await asker.ask(group, REQUEST);
  } finally {
    await asker.close();
  }
}

/** The same URL at the port of the secret server. */
function atSecretPort(url: string): string {
  if (!URL.canParse(url)) return url;
  const aimed = new URL(url);
  if (aimed.host !== '') aimed.port = String(secret.port);
  return aimed.href;
}

const answering =
  (...answers: string[][]): Resolve =>
  (_, done) => {
    const addresses = answers.length > 1 ? answers.shift() : answers[0];
    done(
      null,
      (addresses ?? []).map(
        (address): LookupAddress => ({
          address,
          family: address.includes(':') ? 6 : 4,
        }),
      ),
    );
  };

const byName = createCallbackPolicy({ allow: 'accounts,0.0.0.0/0,::/0', loopbackAllowed: false });

test('no URL of the corpus opens a connection to this machine, with all of IPv4 and IPv6 allowed', async () => {
  for (const url of FORBIDDEN_URLS) {
    expect(await ask(atSecretPort(url), byName)).toMatchObject({ kind: 'unanswered' });
  }
  expect(secret.connections).toBe(0);
});

test('the server that must not be reached is reachable where loopback is allowed', async () => {
  const loopback = createCallbackPolicy({ allow: '', loopbackAllowed: true });
  expect(await ask(`http://127.0.0.1:${secret.port}/`, loopback)).toMatchObject({
    kind: 'answered',
  });
  expect(await ask(`http://localhost:${secret.port}/`, loopback)).toMatchObject({
    kind: 'answered',
  });
});

test.each(['127.0.0.1', '::1', '::ffff:127.0.0.1', '0.0.0.0', '::', '169.254.169.254'])(
  'an allowed name that resolves to %s is not called',
  async (address) => {
    const outcome = await ask(`http://accounts:${secret.port}/`, byName, answering([address]));
    expect(outcome).toMatchObject({ detail: expect.stringContaining('ESCROW_CALLBACK_ALLOW') });
    expect(secret.connections).toBe(0);
  },
);

test('one forbidden address among allowed ones refuses the name', async () => {
  const outcome = await ask(
    `http://accounts:${secret.port}/`,
    byName,
    answering(['10.0.0.1', '127.0.0.1']),
  );
  expect(outcome).toMatchObject({ detail: expect.stringContaining('loopback address 127.0.0.1') });
  expect(secret.connections).toBe(0);
});

test('a name that resolves to something else the second time is refused the second time', async () => {
  const allow = createCallbackPolicy({ allow: '127.0.0.1/32', loopbackAllowed: false });
  const rebinding = answering(['127.0.0.1'], ['127.0.0.2']);
  const url = `http://accounts:${secret.port}/`;
  expect(await ask(url, allow, rebinding)).toMatchObject({ kind: 'answered' });
  expect(await ask(url, allow, rebinding)).toMatchObject({
    detail: expect.stringContaining('loopback address 127.0.0.2'),
  });
  expect(secret).toMatchObject({ connections: 1, requests: 1 });
});

test('the address at the other end is checked even when nothing before it was', async () => {
  // The resolver hook never hears of a literal address: only the connection's own check is left.
  const allow = { ...byName, checkUrlProblem: () => undefined };
  const outcome = await ask(`http://127.0.0.1:${secret.port}/`, allow);
  expect(outcome).toMatchObject({ detail: expect.stringContaining('loopback address 127.0.0.1') });
  expect(secret.requests).toBe(0);
});

test('a redirect to this machine is not followed (F34)', async () => {
  const elsewhere = createServer((_, response) => {
    response.writeHead(307, { location: `http://127.0.0.1:${secret.port}/` }).end();
  });
  await new Promise<void>((resolve) => elsewhere.listen(0, '127.0.0.1', resolve));
  const { port } = elsewhere.address() as AddressInfo;
  const loopback = createCallbackPolicy({ allow: '', loopbackAllowed: true });
  const outcome = await ask(`http://127.0.0.1:${port}/`, loopback);
  await new Promise((resolve) => elsewhere.close(resolve));
  expect(outcome).toMatchObject({ detail: expect.stringContaining('HTTP 307') });
  expect(secret.connections).toBe(0);
});

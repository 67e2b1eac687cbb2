import type { ServerResponse } from 'node:http';
import { CheckPolicy, type CompensationRequest } from '@escrowmq/protocol';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { Webhook } from 'standardwebhooks';
import { createCallbackPolicy } from '../../broker/src/callback/callback-policy.js';
import { createCompensationCaller } from '../../broker/src/callback/compensation-caller.js';
import { newSigningSecret } from '../../broker/src/callback/signature.js';
import type { ProducerGroup } from '../../broker/src/domain/ports.js';
import {
  acknowledge,
  type CompensationEndpoint,
  startCompensationEndpoint,
} from '../support/compensation-endpoint.js';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const REQUEST: CompensationRequest = {
  id: ID,
  producerGroup: 'accounts',
  businessKeys: [],
  preparedAt: 1_700_000_000_000,
  consumerGroup: 'stock.index',
  message: 3,
  messageId: `${ID}-3`,
  attempt: 2,
};

let endpoint: CompensationEndpoint;
/** The clock that the caller is given. */
let now: number;
let caller: ReturnType<typeof createCompensationCaller>;

beforeEach(async () => {
  endpoint = await startCompensationEndpoint();
  now = Date.now();
  caller = createCompensationCaller({
    allow: createCallbackPolicy({ allow: '', loopbackAllowed: true }),
    observer: { info: () => undefined, failed: () => undefined },
    storeNow: () => now,
  });
});
afterEach(async () => {
  await caller.close();
  await endpoint.close();
});

const group = (changes: Partial<ProducerGroup> = {}): ProducerGroup => ({
  name: 'accounts',
  checkUrls: [],
  compensationUrls: [endpoint.url],
  // The endpoint answers from this process, which a busy machine may keep waiting for a second.
  checkPolicy: CheckPolicy.parse({ timeoutMs: 10_000 }),
  version: 0,
  signingSecrets: [newSigningSecret()],
  ...changes,
});

const json =
  (body: unknown, status = 200) =>
  (response: ServerResponse) => {
    response.writeHead(status, { 'content-type': 'application/json' });
    response.end(typeof body === 'string' ? body : JSON.stringify(body));
  };
const EXACTLY = /answer is not exactly/;

test('a well-formed acknowledgement for the very id is one', async () => {
  endpoint.answer = (_, response) => json({ id: ID.toUpperCase(), acknowledged: true })(response);
  expect(await caller.compensate(group(), REQUEST, {})).toEqual({
    kind: 'acknowledged',
    endpoint: endpoint.url,
    tookMs: expect.any(Number),
  });
});

test.each<[string, (response: ServerResponse) => unknown, RegExp]>([
  ['a 404', json({ id: ID, acknowledged: true }, 404), /^HTTP 404$/],
  ['a 503', json({}, 503), /^HTTP 503$/],
  ['a 201', json({ id: ID, acknowledged: true }, 201), /^HTTP 201$/],
  [
    'a redirect',
    (response) => response.writeHead(307, { location: '/elsewhere' }).end(),
    /not followed$/,
  ],
  ['no answer in time', () => undefined, /^timed out after 300 ms$/],
  ['a lost connection', (response) => response.destroy(), /^connection lost/],
  ['no JSON', json('{'), /^answer is not JSON$/],
  ['nothing', json(''), /^empty answer$/],
  ['another type', (response) => response.end('{}'), /^content type none/],
  ['no id', json({ acknowledged: true }), EXACTLY],
  ['no acknowledgement', json({ id: ID }), EXACTLY],
  ['a refusal', json({ id: ID, acknowledged: false }), EXACTLY],
  ['more than that', json({ id: ID, acknowledged: true, more: 1 }), EXACTLY],
  ['another id', json({ id: ID.replace('f3', 'f4'), acknowledged: true }), /^answered for another/],
  ['too much', json(`${' '.repeat(5_000)}{}`), /^answer larger than 4096 bytes$/],
])('%s is no answer', async (what, answer, detail) => {
  endpoint.answer = (_request, response) => void answer(response);
  const checkPolicy = CheckPolicy.parse({ timeoutMs: what === 'no answer in time' ? 300 : 10_000 });
  expect(await caller.compensate(group({ checkPolicy }), REQUEST, {})).toEqual({
    kind: 'unanswered',
    endpoint: endpoint.url,
    tookMs: expect.any(Number),
    detail: expect.stringMatching(detail),
  });
});

test('the time that is signed is of the clock that the caller is given', async () => {
  const signed: unknown[] = [];
  endpoint.answer = (request, response, { headers }) => {
    signed.push(headers['webhook-timestamp']);
    acknowledge(request, response);
  };
  for (now of [1_700_000_000_999, 1_600_000_000_000]) {
    await caller.compensate(group(), REQUEST, {});
  }
  expect(signed).toEqual(['1700000000', '1600000000']);
});

test('the call is signed, carries the trace of the prepare, and its id is that of every repeat', async () => {
  const signingSecrets = [newSigningSecret(), newSigningSecret()];
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
  const ids: unknown[] = [];
  endpoint.answer = (request, response, { headers }) => {
    for (const secret of signingSecrets) {
      new Webhook(secret).verify(JSON.stringify(request), headers as Record<string, string>);
    }
    expect(headers.traceparent).toBe(traceparent);
    ids.push(headers['webhook-id']);
    acknowledge(request, response);
  };
  const requests = [
    REQUEST,
    { ...REQUEST, attempt: 3 },
    { ...REQUEST, message: 4 },
    { ...REQUEST, consumerGroup: 'stock_index' },
  ];
  for (const request of requests) {
    const outcome = await caller.compensate(group({ signingSecrets }), request, { traceparent });
    expect(outcome).toMatchObject({ kind: 'acknowledged' });
  }
  const [first, repeat, ...others] = ids;
  expect(repeat).toBe(first);
  expect(new Set([first, ...others]).size).toBe(3);
  expect(first).toMatch(/^compensation_[^.]+$/);
});

test('check endpoints are not called for it, nor what the policy forbids', async () => {
  const none = group({ checkUrls: [endpoint.url], compensationUrls: [] });
  expect(await caller.compensate(none, REQUEST, {})).toEqual({
    kind: 'unanswered',
    tookMs: 0,
    detail: 'the producer group has no compensation URL',
  });
  const forbidden = group({ compensationUrls: ['http://169.254.169.254/'] });
  expect(await caller.compensate(forbidden, REQUEST, {})).toMatchObject({
    kind: 'unanswered',
    detail: expect.stringMatching(/^call not allowed/),
  });
  expect(endpoint.asked).toEqual([]);
});

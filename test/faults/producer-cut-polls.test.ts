import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { createProducer } from '@escrowmq/producer';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { CheckDecider } from '../../producer-sdk/src/checks/check-decider.js';
import { createPollerOf } from '../../producer-sdk/src/checks/check-poller.js';
import { createPollLength } from '../../producer-sdk/src/client/poll-length.js';
import { until } from '../support/until.js';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const CUT_AFTER_MS = 700;

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const each of open.splice(0)) await each.close();
});

/** A broker behind a proxy that cuts what lasts longer than CUT_AFTER_MS; settled after a time. */
async function brokerBehindProxy(settlesAfterMs: number) {
  const startedAt = performance.now();
  const answer = () => ({
    businessKey: 'phone:1',
    settled: performance.now() - startedAt > settlesAfterMs,
    transactions:
      performance.now() - startedAt > settlesAfterMs
        ? []
        : [{ id: ID, producerGroup: 'accounts', state: 'committed', waitingFor: [], failed: [] }],
  });
  const paths: string[] = [];
  const server = http.createServer((request, response) => {
    paths.push(request.url ?? '');
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      const query = new URL(request.url ?? '', 'http://a').searchParams;
      const waitMs = body === '' ? Number(query.get('waitMs') ?? 0) : JSON.parse(body).waitMs;
      const cut = waitMs > CUT_AFTER_MS;
      const answered = body === '' ? answer() : { checks: [] };
      setTimeout(
        () => (cut ? response.destroy() : response.end(JSON.stringify(answered))),
        cut ? CUT_AFTER_MS : waitMs,
      );
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  open.push({
    close: () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  });
  return { address: `http://127.0.0.1:${port}`, paths };
}

describe('U25: behind a proxy that cuts long polls', () => {
  test('a wait goes on until it has settled, by shorter polls', async () => {
    const { address, paths } = await brokerBehindProxy(2_000);
    const producer = createProducer({ brokers: [address], producerGroup: 'accounts' });
    open.unshift(producer);
    const answer = await producer.waitForBusinessKey('phone:1', { waitMs: 60_000 });
    expect(answer.settled).toBe(true);
    expect(paths.length).toBeLessThan(15);
  });

  test('a wait that is over answers what is so, and no error', async () => {
    const { address, paths } = await brokerBehindProxy(60_000);
    const producer = createProducer({ brokers: [address], producerGroup: 'accounts' });
    open.unshift(producer);
    const startedAt = performance.now();
    const answer = await producer.waitForBusinessKey('phone:1', { waitMs: 2_000 });
    expect(answer.settled).toBe(false);
    expect(performance.now() - startedAt).toBeGreaterThan(1_700);
    expect(paths.length).toBeLessThan(15);
  });
});

test('U25: a poll for checks goes on as well, for as long as it was asked to', async () => {
  const { address, paths } = await brokerBehindProxy(0);
  const warnings: string[] = [];
  const logger = { warn: (_: object, text: string) => void warnings.push(text), error() {} };
  const decider: CheckDecider = {
    answerTimeoutMs: 1_000,
    logger,
    decide: async ({ id }) => ({ id, decision: 'unknown' }),
  };
  const options = { brokers: [address], producerGroup: 'accounts' };
  const once = createPollerOf(decider, options);
  const startedAt = performance.now();
  expect(await once.runOnce({ waitMs: 1_500 })).toBe(0);
  expect(performance.now() - startedAt).toBeGreaterThan(1_400);
  await once.close();

  const kept = createPollerOf(decider, { ...options, waitMs: 30_000 });
  paths.length = 0;
  kept.start();
  await until('it has polled four times', () => paths.length >= 4);
  await kept.close();
  expect(warnings).toEqual([expect.stringContaining('cut on their way')]);
});

test('the length of polls follows what cuts them, and grows again', () => {
  const length = createPollLength(30_000);
  expect(length.next(60_000)).toBe(30_000);
  // Refused at once, or silent to its end: nothing was cut.
  expect(length.failed(30_000, 10)).toBe(false);
  expect(length.failed(30_000, 32_000)).toBe(false);
  expect(length.next(60_000)).toBe(30_000);
  expect(length.failed(30_000, 3_000)).toBe(true);
  expect(length.next(60_000)).toBe(2_100);
  expect(length.next(50)).toBe(50);
  for (let poll = 0; poll < 20; poll += 1) length.succeeded();
  expect(length.next(60_000)).toBe(4_200);
});

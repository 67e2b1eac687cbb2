import type { ServerResponse } from 'node:http';
import type { CheckRequest } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Webhook } from 'standardwebhooks';
import { type BrokerBench, openBrokerBench } from '../support/broker-bench.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type CheckEndpoint, decide, startCheckEndpoint } from '../support/check-endpoint.js';
import { uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** The endpoint answers from this process, which a busy machine may keep waiting for a second. */
const POLICY = { firstDelayMs: 0, delayMsMax: 200, timeoutMs: 10_000, unknownMax: 3 };
/** Where no answer is to come. */
const HASTY = { ...POLICY, timeoutMs: 300 };

describe.each(['sqlite', 'mysql'] as const)('on %s', (kind) => {
  const topic = uniqueName('user');
  let broker: BrokerBench;
  let endpoint: CheckEndpoint;
  let group: string;

  beforeAll(async () => {
    broker = await openBrokerBench(kind, topic);
  });
  afterAll(() => broker.remove());
  beforeEach(async () => {
    endpoint = await startCheckEndpoint();
    // A group of its own, because breakers and slots belong to a group's endpoints.
    group = uniqueName('accounts');
  });
  afterEach(() => endpoint.close());

  const prepare = (more?: object) => broker.prepare(group, more);

  test('without a verdict the producer is asked, signed, and its "commit" forwards', async () => {
    const { signingSecret } = await registerGroup(broker.url, group, [endpoint.url], POLICY);
    let verified: unknown;
    endpoint.answer = (check, response, request) => {
      const headers = request.headers as Record<string, string>;
      verified = new Webhook(String(signingSecret)).verify(JSON.stringify(check), headers);
      decide('commit')(check, response);
    };
    const id = await prepare({ checkContext: 'shard-3', businessKeys: ['phone:1'] });
    await until('it is forwarded', async () => (await broker.stateOf(id)) === 'forwarded');
    expect(verified).toMatchObject({
      id,
      producerGroup: group,
      checkContext: 'shard-3',
      businessKeys: ['phone:1'],
      attempt: 1,
    });
    const decided = await view(broker.url, id);
    expect(decided.decision).toMatchObject({ decision: 'commit', by: `check ${endpoint.url}` });
    expect(decided.history).toMatchObject([
      { event: 'check', detail: { answer: 'commit', endpoint: endpoint.url } },
    ]);
    await until('it arrives', () => broker.received(id).length > 0);
    expect(broker.received(id)).toHaveLength(1);
  });

  test('the answer "rollback" rolls back, and nothing is forwarded', async () => {
    await registerGroup(broker.url, group, [endpoint.url], POLICY);
    endpoint.answer = decide('rollback');
    const id = await prepare();
    await until('it is rolled back', async () => (await broker.stateOf(id)) === 'rolledBack');
    expect(endpoint.asked).toHaveLength(1);
    expect(broker.received(id)).toHaveLength(0);
  });

  test('"unknown" asks again later, and the answer that follows decides', async () => {
    await registerGroup(broker.url, group, [endpoint.url], POLICY);
    endpoint.answer = (check, response) =>
      decide(check.attempt < 3 ? 'unknown' : 'commit')(check, response);
    const id = await prepare();
    await until('it is forwarded', async () => (await broker.stateOf(id)) === 'forwarded');
    expect(endpoint.asked.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    expect((await view(broker.url, id)).checks.unknown).toBe(2);
  });

  test('spent attempts park the transaction; a late verdict of the producer is still the truth', async () => {
    await registerGroup(broker.url, group, [endpoint.url], POLICY);
    const id = await prepare();
    await until('it is parked', async () => (await broker.stateOf(id)) === 'parked');
    expect(endpoint.asked).toHaveLength(POLICY.unknownMax);
    expect(await view(broker.url, id)).toMatchObject({
      parkedReason: 'unresolved',
      settled: false,
    });
    // Written before the row, and read from another pipe than the answer that showed the row.
    await until('somebody is alerted', () =>
      broker.log.some(({ kind, transactionId }) => kind === 'parked' && transactionId === id),
    );
    const late = await call(`${broker.url}/v1/transactions/${id}/commit`, 'POST');
    expect(late).toMatchObject({ status: 200, body: { state: 'committed' } });
    await until('it is forwarded', async () => (await broker.stateOf(id)) === 'forwarded');
  });

  test('an operator may have a parked transaction checked again, on record', async () => {
    await registerGroup(broker.url, group, [endpoint.url], POLICY);
    const id = await prepare();
    await until('it is parked', async () => (await broker.stateOf(id)) === 'parked');
    endpoint.answer = decide('rollback');
    const word = { action: 'recheck', operator: 'ada', reason: 'the database is back' };
    expect(await call(`${broker.url}/v1/transactions/${id}/resolve`, 'POST', word)).toMatchObject({
      status: 200,
      body: { state: 'prepared' },
    });
    await until('it is rolled back', async () => (await broker.stateOf(id)) === 'rolledBack');
    expect((await view(broker.url, id)).history).toContainEqual(
      expect.objectContaining({ event: 'resolve', detail: word }),
    );
    const resend = { ...word, action: 'resend' };
    expect(await call(`${broker.url}/v1/transactions/${id}/resolve`, 'POST', resend)).toMatchObject(
      {
        status: 409,
        body: { code: 'STATE_CONFLICT' },
      },
    );
  });

  const noAnswers: [string, (check: CheckRequest, response: ServerResponse) => void, RegExp][] = [
    ['hangs', () => undefined, /timed out/],
    [
      'redirects',
      (_, response) => response.writeHead(307, { location: endpoint.url }).end(),
      /redirect/,
    ],
    [
      'answers HTML',
      (_, response) =>
        response.writeHead(200, { 'content-type': 'text/html' }).end('<html>commit</html>'),
      /./,
    ],
    ['answers 404', (_, response) => response.writeHead(404).end('{"decision":"rollback"}'), /404/],
    ['answers 500', (_, response) => response.writeHead(500).end(), /500/],
    [
      'answers for another id',
      (check, response) =>
        decide('commit')({ ...check, id: '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f' }, response),
      /another id/,
    ],
    [
      'answers 10 MB',
      (check, response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        const padding = ' '.repeat(10_000_000);
        response.end(`{"id":"${check.id}",${padding}"decision":"commit"}`);
      },
      /./,
    ],
    ['answers nothing', (_, response) => response.writeHead(200).end(), /./],
    ['hangs up', (_, response) => response.destroy(), /./],
  ];
  test.each(noAnswers)(
    'an endpoint that %s gives no answer: nothing is decided and no attempt is spent (F32, F34)',
    async (how, answer, detail) => {
      await registerGroup(broker.url, group, [endpoint.url], how === 'hangs' ? HASTY : POLICY);
      endpoint.answer = answer;
      const id = await prepare();
      await until(
        'two checks got no answer',
        async () => (await view(broker.url, id)).checks.unanswered >= 2,
      );
      const waiting = await view(broker.url, id);
      expect(waiting).toMatchObject({ state: 'prepared', checks: { unknown: 0 } });
      expect(waiting.decision).toBeUndefined();
      expect(waiting.history[0]).toMatchObject({ event: 'check', detail: { answer: 'none' } });
      expect(String(waiting.history[0]?.detail.detail)).toMatch(detail);

      endpoint.answer = decide('rollback');
      await until(
        'an answer decides',
        async () => (await broker.stateOf(id)) === 'rolledBack',
        30_000,
      );
    },
  );

  test('a group without an endpoint is not decided for, and somebody is alerted (F37)', async () => {
    await registerGroup(broker.url, group, [], { ...POLICY, alertAfterMs: 0 });
    const id = await prepare();
    await until('somebody is alerted', () =>
      broker.log.some((entry) => entry.event === 'alert' && entry.transactionId === id),
    );
    expect(await broker.stateOf(id)).toBe('prepared');
    expect((await view(broker.url, id)).checks.unknown).toBe(0);
  });

  test('one group whose endpoint hangs does not hold up another (F30)', async () => {
    const slow = uniqueName('slow');
    const hanging = await startCheckEndpoint();
    hanging.answer = () => undefined;
    await registerGroup(broker.url, slow, [hanging.url], { ...POLICY, timeoutMs: 30_000 });
    await registerGroup(broker.url, group, [endpoint.url], POLICY);
    endpoint.answer = decide('commit');
    try {
      await Promise.all(
        Array.from({ length: 100 }, () =>
          call(`${broker.url}/v1/transactions`, 'POST', {
            producerGroup: slow,
            messages: [{ topic, data: 1 }],
          }),
        ),
      );
      await until('the slow one is being asked', () => hanging.asked.length >= 8);
      const id = await prepare();
      await until(
        'the other is decided',
        async () => (await broker.stateOf(id)) === 'forwarded',
        20_000,
      );
      expect(hanging.asked.length).toBeLessThanOrEqual(8);
    } finally {
      await hanging.close();
    }
  });

  test('a verdict that comes while the check is under way wins over its answer', async () => {
    await registerGroup(broker.url, group, [endpoint.url], POLICY);
    const held: (() => void)[] = [];
    endpoint.answer = (check, response) => held.push(() => decide('rollback')(check, response));
    const id = await prepare();
    await until('the check is under way', () => held.length === 1);
    await call(`${broker.url}/v1/transactions/${id}/commit`, 'POST');
    held[0]?.();
    await until('the contradiction is on record', async () =>
      (await view(broker.url, id)).history.some(({ event }) => event === 'conflict'),
    );
    expect((await view(broker.url, id)).decision).toMatchObject({
      decision: 'commit',
      by: 'producer',
    });
  });
});

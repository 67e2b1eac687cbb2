import type { ServerResponse } from 'node:http';
import type { CompensationRequest, ConsumerReceipt, TransactionView } from '@escrowmq/protocol';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { Webhook } from 'standardwebhooks';
import { type BrokerBench, openBrokerBench } from '../support/broker-bench.js';
import { call, view } from '../support/broker-client.js';
import {
  acknowledge,
  type CompensationEndpoint,
  startCompensationEndpoint,
} from '../support/compensation-endpoint.js';
import { onChannel } from '../support/rabbit.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

/** The endpoint answers from this process, which a busy machine may keep waiting for a second. */
const POLICY = { firstDelayMs: 0, delayMsMax: 100, timeoutMs: 10_000, alertAfterMs: 60_000 };

describe.each(['sqlite', 'mysql'] as const)('on %s', (kind) => {
  const topic = uniqueName('orders');
  let broker: BrokerBench;
  let endpoint: CompensationEndpoint;
  let group: string;

  beforeAll(async () => {
    broker = await openBrokerBench(kind, topic);
  });
  afterAll(() => broker.remove());
  beforeEach(async () => {
    endpoint = await startCompensationEndpoint();
    // A group of its own, because breakers and slots belong to a group's endpoints.
    group = uniqueName('shop');
  });
  afterEach(() => endpoint.close());

  const register = async (compensationUrls: string[], checkPolicy: object = {}) =>
    (
      await call(`${broker.url}/v1/producer-groups/${group}`, 'PUT', {
        checkUrls: [],
        compensationUrls,
        checkPolicy: { ...POLICY, ...checkPolicy },
      })
    ).body;

  /** Sends a message that asks for compensation; resolves when it has arrived, and is on record. */
  async function send(more: object = {}): Promise<string> {
    const { body } = await call(`${broker.url}/v1/messages`, 'POST', {
      producerGroup: group,
      expects: ['stock'],
      messages: [{ topic, data: 1, compensate: true }],
      ...more,
    });
    await until('it arrives', () => broker.received(body.id).length > 0);
    await until('it is saved', async () => (await view(broker.url, body.id)).state === 'forwarded');
    return body.id;
  }

  /** The word of the consumer group on message 0. */
  async function tell(id: string, receipt: Partial<ConsumerReceipt>): Promise<void> {
    const receipts = [{ messageId: `${id}-0`, consumerGroup: 'stock', kind: 'failed', ...receipt }];
    await onChannel(rabbitmqUrl(), async (channel) => {
      const queueName = String(broker.received(id)[0]?.properties.replyTo);
      channel.sendToQueue(queueName, Buffer.from(JSON.stringify({ receipts })));
      await channel.waitForConfirms();
    });
  }

  const compensationOf = async (id: string) => (await view(broker.url, id)).compensations[0];
  /** Resolves when a try is saved, which follows its alert. */
  async function failedTry(id: string) {
    await until(
      'a try is saved',
      async () => (await compensationOf(id))?.lastFailure !== undefined,
    );
    return compensationOf(id);
  }
  const isDone = async (id: string) => (await compensationOf(id))?.state === 'done';
  const alerts = (id: string) =>
    broker.log
      .filter(({ event, transactionId }) => event === 'alert' && transactionId === id)
      .map((entry) => entry.kind);

  test('what a group gives up is told to the producer, signed, until it acknowledges', async () => {
    const { signingSecret } = await register([endpoint.url]);
    let verified: unknown;
    endpoint.answer = (request, response, { headers }) => {
      verified = new Webhook(signingSecret).verify(
        JSON.stringify(request),
        headers as Record<string, string>,
      );
      acknowledge(request, response);
    };
    const id = await send({ businessKeys: ['order:1'] });
    await tell(id, { attempts: 5, cause: 'no such article' });
    await until('it is compensated', () => isDone(id));
    expect(verified).toEqual({
      id,
      producerGroup: group,
      businessKeys: ['order:1'],
      preparedAt: expect.any(Number),
      sent: true,
      consumerGroup: 'stock',
      message: 0,
      messageId: `${id}-0`,
      attempts: 5,
      cause: 'no such article',
      attempt: 1,
    });
    expect(await view(broker.url, id)).toMatchObject({
      state: 'forwarded',
      settled: false,
      groups: [{ consumerGroup: 'stock', state: 'failed', attempts: 5, cause: 'no such article' }],
      compensations: [{ consumerGroup: 'stock', message: 0, state: 'done', attempts: 1 }],
    });
    await tell(id, {});
    const other = await send();
    await tell(other, {});
    await until('a later one is compensated', () => isDone(other));
    expect(endpoint.asked.map((request) => request.id)).toEqual([id, other]);
  });

  test('without an acknowledgement the same call comes again', async () => {
    await register([endpoint.url]);
    const seen: unknown[] = [];
    endpoint.answer = (request, response, incoming) => {
      seen.push([incoming.headers['webhook-id'], request.attempt]);
      (request.attempt < 4 ? busy : acknowledge)(request, response);
    };
    const id = await send();
    await tell(id, {});
    await until('it is compensated', () => isDone(id));
    const name = expect.stringMatching(/^compensation_[^.]+$/);
    expect(seen).toEqual([1, 2, 3, 4].map((attempt) => [name, attempt]));
    expect(new Set((seen as [string][]).map(([webhookId]) => webhookId)).size).toBe(1);
    expect(alerts(id)).toEqual([]);
  });

  test('an endpoint that is down for long is alerted of, and called when it is up', async () => {
    await register([endpoint.url], { alertAfterMs: 300 });
    endpoint.answer = busy;
    const id = await send();
    await tell(id, {});
    await until('somebody is told', () => alerts(id).length > 0);
    expect(await failedTry(id)).toMatchObject({
      state: 'owed',
      lastFailure: expect.stringMatching(/^(HTTP 503|breaker open)/),
    });
    const { body: metrics } = await call(`${broker.url}/metrics`);
    expect(metrics).toMatch(/^escrow_compensations_total\{outcome="none"\} [1-9]/m);
    endpoint.answer = acknowledge;
    await until('it is compensated', () => isDone(id), 20_000);
    expect(alerts(id)).toEqual(['compensationUnanswered']);
  });

  test('a group without an endpoint is alerted of at once, and has its call when one is there', async () => {
    // So long a back-off that only the registration can bring the call.
    await register([], { firstDelayMs: 60_000, delayMsMax: 60_000 });
    const id = await send();
    await tell(id, {});
    await until('somebody is told', () => alerts(id).length > 0);
    expect(alerts(id)).toEqual(['compensationUnanswered']);
    expect(await failedTry(id)).toMatchObject({ state: 'owed', attempts: 0 });
    await register([endpoint.url]);
    await until('it is compensated', () => isDone(id));
  });

  test('an operator ends what will never be acknowledged', async () => {
    await register([endpoint.url], { alertAfterMs: 0 });
    endpoint.answer = busy;
    const id = await send();
    const resolve = () =>
      call(`${broker.url}/v1/transactions/${id}/resolve`, 'POST', {
        action: 'compensated',
        operator: 'ann',
        reason: 'older than its barrier row; the order is cancelled by hand',
      });
    const early = await resolve();
    expect(early).toMatchObject({ status: 409, body: { code: 'STATE_CONFLICT' } });
    expect(early.body.detail).toContain('owes no compensation');
    await tell(id, {});
    await until('it is alerted of', () => alerts(id).length > 0);
    await failedTry(id);
    expect(await resolve()).toMatchObject({ status: 200, body: { id, state: 'forwarded' } });
    const { compensations, history } = await view(broker.url, id);
    expect(compensations).toMatchObject([{ state: 'done', lastFailure: expect.any(String) }]);
    const ended = [{ consumerGroup: 'stock', message: 0 }];
    expect(history).toMatchObject([
      { event: 'resolve', detail: { operator: 'ann', compensations: ended } },
    ]);
    expect((await resolve()).status).toBe(409);
    expect(await compensationOf(id)).toMatchObject({ attempts: compensations[0]?.attempts });
  });

  test('a group that consumes after all withdraws what is owed; what is done is alerted', async () => {
    await register([endpoint.url]);
    endpoint.answer = busy;
    const owed = await send();
    await tell(owed, {});
    await until('it is called', () => endpoint.asked.length > 0);
    await tell(owed, { kind: 'consumed' });
    await until('it is settled', async () => (await view(broker.url, owed)).settled);
    expect(await compensationOf(owed)).toMatchObject({ state: 'withdrawn' });
    await until('somebody is told that it may have been run', () =>
      alerts(owed).includes('consumedAfterCompensation'),
    );

    endpoint.answer = acknowledge;
    const done = await send();
    await tell(done, {});
    await until('it is compensated', () => isDone(done), 20_000);
    await tell(done, { kind: 'consumed' });
    await until('somebody is told', () => alerts(done).length > 0);
    expect(alerts(done)).toEqual(['consumedAfterCompensation']);
    expect(await view(broker.url, done)).toMatchObject({
      settled: true,
      groups: [{ state: 'consumed' }],
      compensations: [{ state: 'done' }],
    });
    expect(endpoint.asked.filter(({ id }) => id === done)).toHaveLength(1);
  });

  describe('waiting for one transaction', () => {
    const waited = async (id: string, waitMs: number): Promise<TransactionView> =>
      (await call(`${broker.url}/v1/transactions/${id}?waitMs=${waitMs}`)).body;

    test('it ends when the transaction has settled, or its last group gave up, or time is over', async () => {
      await register([endpoint.url]);
      endpoint.answer = acknowledge;
      const settling = await send();
      const failing = await send();
      const open = await send();
      const waits = Promise.all([waited(settling, 30_000), waited(failing, 30_000)]);
      await tell(settling, { kind: 'consumed', attempts: 2 });
      await tell(failing, {});
      expect(await waits).toMatchObject([
        { settled: true, groups: [{ state: 'consumed', attempts: 2 }] },
        { settled: false, groups: [{ state: 'failed' }] },
      ]);
      expect(await waited(open, 100)).toMatchObject({
        settled: false,
        groups: [{ consumerGroup: 'stock', state: 'waiting', attempts: 0 }],
      });
    });

    test('of nobody it is refused at once, as is a wait that is too long', async () => {
      const unknown = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
      const url = `${broker.url}/v1/transactions/${unknown}`;
      expect(await call(`${url}?waitMs=30000`)).toMatchObject({
        status: 404,
        body: { code: 'TRANSACTION_NOT_FOUND' },
      });
      expect((await call(`${url}?waitMs=30001`)).status).toBe(400);
      expect((await call(`${url}?wait=1`)).status).toBe(400);
    });
  });

  test('endpoints that the broker may not call are refused', async () => {
    const { code } = await register(['http://169.254.169.254/latest/meta-data']);
    expect(code).toBe('CHECK_URL_NOT_ALLOWED');
    expect((await register(['http://a:b@c/'])).code).toBe('INVALID_REQUEST');
  });
});

function busy(_request: CompensationRequest, response: ServerResponse): void {
  response.writeHead(503).end();
}

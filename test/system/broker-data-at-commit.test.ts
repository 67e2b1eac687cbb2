import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BoundQueue, bindQueue } from '../support/bound-queue.js';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { startCheckEndpoint } from '../support/check-endpoint.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

describe.each(['sqlite', 'mysql'] as const)('on %s', (kind) => {
  const topic = uniqueName('user');
  const group = uniqueName('accounts');
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;
  let queue: BoundQueue;

  beforeAll(async () => {
    store = await freshStore(kind);
    broker = await startBrokerProcess({
      store: store.url,
      rabbitmq: rabbitmqUrl(),
      environment: { ESCROW_TRANSACTION_BYTES_MAX: '4000' },
    });
    queue = await bindQueue(rabbitmqUrl(), [{ topic, routingKey: '#' }]);
    await registerGroup(broker.url, group);
  });
  afterAll(async () => {
    await queue.close();
    await broker.stop();
    await store.remove();
  });

  /** One message with its data, and one that waits for it. */
  const prepare = async (more: object = {}) =>
    (
      await call(`${broker.url}/v1/transactions`, 'POST', {
        producerGroup: group,
        messages: [
          { topic, data: 'here' },
          { topic, dataAtCommit: true },
        ],
        ...more,
      })
    ).body.id as string;
  const commit = (id: string, body?: object) =>
    call(`${broker.url}/v1/transactions/${id}/commit`, 'POST', body);
  const stateOf = async (id: string) => (await view(broker.url, id)).state;
  const bodies = (id: string) =>
    queue.received
      .filter(({ properties }) => String(properties.messageId).startsWith(id))
      .map(({ properties, content }) => [properties.messageId, String(content)])
      .sort();

  test('a commit brings the data, and both messages arrive', async () => {
    const id = await prepare();
    const answer = await commit(id, { messageData: [{ number: 1, data: { userId: 7 } }] });
    expect(answer).toMatchObject({ status: 200, body: { id, state: 'committed' } });
    await until('both arrive', () => bodies(id).length === 2);
    expect(bodies(id)).toEqual([
      [`${id}-0`, '"here"'],
      [`${id}-1`, '{"userId":7}'],
    ]);
  });

  test('a commit without the data is refused, and nothing is forwarded until one brings it', async () => {
    const id = await prepare();
    expect(await commit(id)).toMatchObject({
      status: 422,
      body: { code: 'MESSAGE_DATA_MISSING', missing: [1] },
    });
    const word = { action: 'commit', operator: 'ada', reason: 'asked the customer' };
    expect(await call(`${broker.url}/v1/transactions/${id}/resolve`, 'POST', word)).toMatchObject({
      status: 422,
      body: { code: 'MESSAGE_DATA_MISSING' },
    });
    expect(await commit(id, { messageData: [{ number: 0, data: 1 }] })).toMatchObject({
      status: 400,
      body: { code: 'INVALID_REQUEST', errors: [{ message: 'message 0 is not open' }] },
    });
    expect(await view(broker.url, id)).toMatchObject({
      state: 'prepared',
      messages: [{ state: 'half' }, { state: 'half', bytes: 0 }],
    });
    expect(bodies(id)).toEqual([]);
    const brings = (data: string) => commit(id, { messageData: [{ number: 1, data }] });
    expect((await brings('first')).status).toBe(200);
    await until('both arrive', () => bodies(id).length === 2);
    expect((await brings('second')).status).toBe(200);
    expect(bodies(id)[1]).toEqual([`${id}-1`, '"first"']);
  });

  test('bytes may come with the commit, in a batch too', async () => {
    const [a, b] = [await prepare(), await prepare()];
    const messageData = [{ number: 1, dataBase64: 'AGE=', contentType: 'text/plain' }];
    const { body } = await call(`${broker.url}/v1/batch`, 'POST', {
      operations: [
        { op: 'commit', id: a, messageData },
        { op: 'commit', id: b },
      ],
    });
    expect(body.results).toMatchObject([
      { status: 200 },
      { status: 422, problem: { code: 'MESSAGE_DATA_MISSING' } },
    ]);
    await until('they arrive', () => bodies(a).length === 2);
    expect(bodies(a)[1]).toEqual([`${a}-1`, '\u0000a']);
    expect(await stateOf(b)).toBe('prepared');
  });

  test('what prepare and commit bring is held to the limit of one transaction together', async () => {
    const half = 'x'.repeat(2_500);
    const messages = [
      { topic, data: half },
      { topic, dataAtCommit: true },
    ];
    const id = await prepare({ messages });
    expect(await commit(id, { messageData: [{ number: 1, data: half }] })).toMatchObject({
      status: 413,
      body: { code: 'BODY_TOO_LARGE', bytesMax: 4000 },
    });
    expect(await stateOf(id)).toBe('prepared');
  });

  test('a prepare that leaves open what another had whole is no repeat of it', async () => {
    const message = { topic, data: null };
    const id = await prepare({ messages: [message] });
    const repeat = await call(`${broker.url}/v1/transactions`, 'POST', {
      id,
      producerGroup: group,
      messages: [{ topic, dataAtCommit: true }],
    });
    expect(repeat).toMatchObject({ status: 409, body: { code: 'CONTENT_CONFLICT' } });
  });

  test('a check answered "commit" counts only with the data', async () => {
    const endpoint = await startCheckEndpoint();
    const checked = uniqueName('checked');
    const policy = { firstDelayMs: 0, delayMsMax: 200, timeoutMs: 10_000 };
    await registerGroup(broker.url, checked, [endpoint.url], policy);
    let bringsData = false;
    endpoint.answer = (check, response) => {
      response.writeHead(200, { 'content-type': 'application/json' });
      const messageData = bringsData ? [{ number: 1, data: 'late' }] : undefined;
      response.end(JSON.stringify({ id: check.id, decision: 'commit', messageData }));
    };
    try {
      const id = await prepare({ producerGroup: checked });
      await until(
        'a commit without the data is no answer',
        async () => (await view(broker.url, id)).checks.unanswered > 0,
      );
      const waiting = await view(broker.url, id);
      expect(waiting).toMatchObject({ state: 'prepared', checks: { unknown: 0 } });
      expect(waiting.history[0]?.detail).toMatchObject({
        answer: 'none',
        detail: expect.stringContaining('waits for the data of message 1'),
      });
      bringsData = true;
      await until('it is forwarded', async () => (await stateOf(id)) === 'forwarded');
      await until('both arrive', () => bodies(id).length === 2);
      expect(bodies(id)[1]).toEqual([`${id}-1`, '"late"']);
    } finally {
      await endpoint.close();
    }
  });
});

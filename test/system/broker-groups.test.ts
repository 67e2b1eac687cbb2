import { randomBytes } from 'node:crypto';
import { createServer } from 'node:net';
import { startTcpProxy } from '@escrowmq/local-servers';
import { createProducer, type RegisterGroupOptions } from '@escrowmq/producer';
import { afterAll, beforeAll, beforeEach, describe, expect, test } from '@jest/globals';
import { call, registerGroup, view } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { decide, startCheckEndpoint } from '../support/check-endpoint.js';
import { rabbitmqUrl, uniqueName } from '../support/servers.js';
import { until } from '../support/until.js';

let store: Awaited<ReturnType<typeof freshStore>>;
let broker: BrokerProcess;
let group: string;

beforeAll(async () => {
  store = await freshStore('sqlite');
  broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
});
afterAll(async () => {
  await broker.stop();
  await store.remove();
});
beforeEach(() => {
  group = uniqueName('accounts');
});

const register = (body: object) => call(`${broker.url}/v1/producer-groups/${group}`, 'PUT', body);
const prepare = async () =>
  (
    await call(`${broker.url}/v1/transactions`, 'POST', {
      producerGroup: group,
      messages: [{ topic: uniqueName('user'), data: 1, ifUnrouted: 'drop' }],
    })
  ).body.id as string;

test('of two versions of a service that register, the newer one stands', async () => {
  const newer = { version: 2, checkUrls: ['http://127.0.0.1:1/new'] };
  const older = { version: 1, checkUrls: ['http://127.0.0.1:1/old'], rotateSecret: true };
  expect(await register(newer)).toMatchObject({
    status: 201,
    body: { version: 2, applied: true, signingSecret: expect.stringMatching(/^whsec_/) },
  });
  const late = await register(older);
  expect(late).toMatchObject({
    status: 200,
    body: { version: 2, applied: false, checkUrls: newer.checkUrls },
  });
  expect(late.body).not.toHaveProperty('signingSecret');
  const shown = await call(`${broker.url}/v1/producer-groups/${group}`);
  expect(shown.body).toMatchObject({ version: 2, checkUrls: newer.checkUrls });
  expect(shown.body).not.toHaveProperty('applied');
  expect(await register({ ...older, version: 2 })).toMatchObject({ body: { applied: true } });
  expect(await register({ checkUrls: [] })).toMatchObject({
    body: { version: 2, applied: true, checkUrls: [] },
  });
});

/** An address at which nobody listens. */
async function deadUrl(): Promise<string> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return `http://127.0.0.1:${typeof address === 'object' ? address?.port : ''}/check`;
}

test('when the first endpoint is dead, the next check goes to the next one', async () => {
  const living = await startCheckEndpoint();
  living.answer = decide('rollback');
  try {
    const dead = await deadUrl();
    const policy = { firstDelayMs: 0, delayMsMax: 200, timeoutMs: 10_000 };
    await registerGroup(broker.url, group, [dead, living.url], policy);
    const id = await prepare();
    const stateOf = async (each: string) => (await view(broker.url, each)).state;
    await until('it is decided', async () => (await stateOf(id)) === 'rolledBack');
    const { history, decision } = await view(broker.url, id);
    expect(history.map(({ detail }) => [detail.endpoint, detail.answer])).toEqual([
      [dead, 'none'],
      [living.url, 'rollback'],
    ]);
    expect(decision).toMatchObject({ by: `check ${living.url}` });

    // The living one keeps its turn: none of these is asked of the dead one first.
    for (let n = 0; n < 3; n += 1) {
      const next = await prepare();
      await until('it is decided', async () => (await stateOf(next)) === 'rolledBack');
      expect((await view(broker.url, next)).history).toHaveLength(1);
    }
  } finally {
    await living.close();
  }
});

test('many checks at once, and a dead endpoint before and after the living one: all are answered', async () => {
  const living = await startCheckEndpoint();
  living.answer = decide('rollback');
  try {
    const policy = { firstDelayMs: 0, delayMsMax: 200, timeoutMs: 10_000, concurrencyMax: 2 };
    const urls = [await deadUrl(), living.url, await deadUrl()];
    await registerGroup(broker.url, group, urls, policy);
    const ids = await Promise.all(Array.from({ length: 40 }, prepare));
    await until('all are decided', async () => {
      const views = await Promise.all(ids.map((id) => view(broker.url, id)));
      return views.every(({ state }) => state === 'rolledBack');
    });
  } finally {
    await living.close();
  }
});

describe('a service that brings its own secret', () => {
  const secret = () => `whsec_${randomBytes(32).toString('base64')}`;
  const checkUrls = ['http://127.0.0.1:1/check'];

  test('N03: registers as often as it likes, and no answer and no line of the log has the secret', async () => {
    const [first, second] = [secret(), secret()];
    const own = { checkUrls, signingSecrets: [first] };
    const answers = [await register(own), await register(own)];
    answers.push(await register({ checkUrls, signingSecrets: [second, first] }));
    answers.push(await register({ checkUrls, signingSecrets: [second] }));
    expect(answers.map(({ status }) => status)).toEqual([201, 200, 200, 200]);
    expect(answers.map(({ body }) => 'replaced' in body)).toEqual([false, false, true, false]);
    expect(answers[2]!.body.replaced).toMatchObject({ signingSecret: true });
    const said = JSON.stringify([answers, broker.log]);
    for (const one of [first, second]) expect(said).not.toContain(one.slice('whsec_'.length));
  });

  test('N11: two services on one group show, in the answer and in the log', async () => {
    await register({ checkUrls });
    // Another instance of the same service, which takes nothing away.
    const both = [...checkUrls, 'http://127.0.0.1:3/check'];
    const more = await register({ checkUrls: both });
    expect(more.body).not.toHaveProperty('replaced');
    const { body } = await register({ checkUrls: ['http://127.0.0.1:2/check'] });
    expect(body.replaced).toEqual({ checkUrls: both, compensationUrls: [], signingSecret: false });
    await until('the log has it', () =>
      broker.log.some(
        (line) =>
          line.level === 'warn' &&
          line.producerGroup === group &&
          String(line.detail).includes(`check URLs ${both.join(' ')} → http://127.0.0.1:2/check`),
      ),
    );
  });

  test('U12: the SDK repeats a call whose answer was lost, and has the secret that the broker has', async () => {
    const proxy = await startTcpProxy(broker.url);
    const producer = createProducer({ brokers: [proxy.url], producerGroup: group });
    const lostAnswer = async (options: RegisterGroupOptions) => {
      proxy.impair({ kind: 'hold' }, 'toClient');
      const answer = producer.registerGroup(options);
      const registered = async () => {
        const found = await call(`${broker.url}/v1/producer-groups/${group}`);
        return found.status === 200;
      };
      await until('the broker has it', registered);
      proxy.cut();
      proxy.heal();
      return answer;
    };
    const { signingSecret } = await lostAnswer({ checkUrls });
    expect(signingSecret).toMatch(/^whsec_/);
    // In force: [it, another] is the rotation back, and not the replacement of a third one.
    const same = await register({ checkUrls, signingSecrets: [signingSecret] });
    expect(same.body).not.toHaveProperty('replaced');
    const again = await producer.registerGroup({ checkUrls });
    expect(again).not.toHaveProperty('signingSecret');
    expect(
      await producer.registerGroup({ checkUrls, signingSecret: signingSecret! }),
    ).toMatchObject({
      signingSecret,
    });
    await producer.close();
    await proxy.close();
  });
});

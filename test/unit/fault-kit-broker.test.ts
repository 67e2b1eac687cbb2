import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createProducer, type Producer } from '@escrowmq/producer';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { uuidv7 } from 'uuidv7';
import { createAsker } from '../../producer-sdk/src/fault-kit/asker.js';
import { type KitBroker, startKitBroker } from '../../producer-sdk/src/fault-kit/kit-broker.js';
import { recordingLogger, SIGNING_SECRET } from '../support/producer-database.js';

const GROUP = { producerGroup: 'accounts', signingSecret: SIGNING_SECRET };
const messages = [{ topic: 'user', data: 7 }];

let broker: KitBroker;
let producer: Producer;

beforeEach(async () => {
  broker = await startKitBroker(GROUP);
  const { logger } = recordingLogger();
  producer = createProducer({ brokers: [broker.address], producerGroup: 'accounts', logger });
});
afterEach(async () => {
  await producer.close();
  await broker.close();
});

async function post(path: string, body?: object): Promise<{ status: number; answer: unknown }> {
  const response = await fetch(`${broker.address}${path}`, {
    method: 'POST',
    body: body === undefined ? null : JSON.stringify(body),
  });
  return { status: response.status, answer: await response.json() };
}

describe("the kit's broker", () => {
  test('takes single calls, repeated ones too, as the real one does', async () => {
    const prepare = { producerGroup: 'accounts', id: uuidv7(), messages };
    const prepared = { id: prepare.id, state: 'prepared' };
    expect(await post('/v1/transactions', prepare)).toEqual({ status: 201, answer: prepared });
    expect(await post('/v1/transactions', prepare)).toEqual({ status: 200, answer: prepared });
    for (let time = 1; time <= 2; time += 1) {
      expect(await post(`/v1/transactions/${prepare.id}/commit`)).toMatchObject({
        status: 200,
        answer: { state: 'committed', decision: { decision: 'commit', by: 'producer' } },
      });
    }
    expect(await post(`/v1/transactions/${prepare.id}/rollback`)).toMatchObject({
      status: 409,
      answer: { code: 'STATE_CONFLICT', decision: { decision: 'commit' } },
    });
    expect(await post(`/v1/transactions/${uuidv7()}/commit`)).toMatchObject({
      status: 404,
      answer: { code: 'TRANSACTION_NOT_FOUND' },
    });
  });

  test('refuses a verdict that contradicts what a check has decided', async () => {
    const episode = broker.begin();
    const { id } = await producer.prepare({ messages });
    const [transaction] = episode.transactions;
    broker.decide(transaction!, 'rollback');
    await expect(producer.commit(id)).rejects.toMatchObject({
      code: 'STATE_CONFLICT',
      details: { decision: { decision: 'rollback', by: 'check' } },
    });
    expect(transaction).toMatchObject({ isStored: true, verdicts: ['commit'] });
  });

  test('wants the data that a prepare left open with the commit', async () => {
    const { id } = await producer.prepare({ messages: [{ topic: 'user', dataAtCommit: true }] });
    await expect(producer.commit(id)).rejects.toMatchObject({ code: 'MESSAGE_DATA_MISSING' });
    const messageData = [{ number: 0, data: 7 }];
    expect(await producer.commit(id, { messageData })).toMatchObject({ state: 'committed' });
  });

  test('registers its group and no other', async () => {
    const checkUrls = ['http://127.0.0.1:1/check'];
    expect(await producer.registerGroup({ checkUrls })).toMatchObject({ ...GROUP, checkUrls });
    const other = createProducer({ brokers: [broker.address], producerGroup: 'payments' });
    await expect(other.registerGroup({ checkUrls })).rejects.toMatchObject({
      code: 'ROUTE_NOT_FOUND',
    });
    await expect(other.prepare({ messages })).rejects.toMatchObject({
      code: 'UNKNOWN_PRODUCER_GROUP',
    });
    await other.close();
  });

  test('a lost request has no effect, a lost answer has its effect', async () => {
    const episode = broker.begin();
    const lose: ('request' | 'answer')[] = ['request', 'answer'];
    const stored: (boolean | undefined)[] = [];
    episode.fault = () => {
      stored.push(episode.transactions[0]?.isStored);
      const next = lose.shift();
      return next === undefined ? {} : { lose: next };
    };
    await producer.prepare({ messages });
    expect(stored).toEqual([false, false, true]);
  });
});

describe('a check', () => {
  const id = uuidv7();
  const transaction = {
    id,
    isStored: true,
    verdicts: [],
    preparedAt: 0,
    businessKeys: [],
    checkContext: undefined,
    messagesOpen: 0,
  };
  const open = { ...transaction, messagesOpen: 1 };
  const asked = (status: number, body: object | string, headers?: Record<string, string>) =>
    createAsker({
      ...GROUP,
      check: async () => ({
        status,
        body: typeof body === 'string' ? body : JSON.stringify(body),
        ...(headers === undefined ? {} : { headers }),
      }),
    });

  test.each([
    ['a status other than 200', asked(204, { id, decision: 'commit' })],
    ['no JSON', asked(200, 'commit')],
    ['another type', asked(200, { id, decision: 'commit' }, { 'content-type': 'text/html' })],
    ['another id', asked(200, { id: uuidv7(), decision: 'commit' })],
    ['another word', asked(200, { id, decision: 'committed' })],
  ])('that is answered with %s counts for none', async (_name, { ask }) => {
    expect(await ask(transaction)).toMatchObject({ decision: 'none' });
  });

  test('that commits without the data left open counts for none', async () => {
    expect(await asked(200, { id, decision: 'commit' }).ask(open)).toMatchObject({
      decision: 'none',
      why: 'a commit without the data that prepare left open',
    });
  });

  test('that throws counts for none', async () => {
    const check = () => Promise.reject(new Error('no database'));
    const { ask } = createAsker({ ...GROUP, check });
    expect(await ask(transaction)).toEqual({ decision: 'none', why: 'no database' });
  });

  test('reaches a URL, and its redirect is not followed', async () => {
    const paths: (string | undefined)[] = [];
    const server = createServer(({ url }, response) => {
      paths.push(url);
      if (url === '/moved') {
        response.writeHead(307, { location: '/check' }).end();
        return;
      }
      response
        .writeHead(200, { 'content-type': 'application/json; charset=utf-8' })
        .end(JSON.stringify({ id, decision: 'unknown' }));
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const at = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const askAt = (path: string) => createAsker({ ...GROUP, check: at + path }).ask(transaction);
    expect(await askAt('/check')).toEqual({ decision: 'unknown' });
    expect(await askAt('/moved')).toMatchObject({ decision: 'none', status: 307 });
    expect(paths).toEqual(['/check', '/moved']);
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  });
});

import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { call, registerGroup } from '../support/broker-client.js';
import { type BrokerProcess, freshStore, startBrokerProcess } from '../support/broker-process.js';
import { rabbitmqUrl } from '../support/servers.js';

const KEYS = {
  accounts: 'accounts-key-0123456789',
  orders: 'orders-key-0123456789',
  operator: 'operator-key-0123456789',
};

describe.each(['sqlite', 'mysql'] as const)('bad input on %s', (kind) => {
  let store: Awaited<ReturnType<typeof freshStore>>;
  let broker: BrokerProcess;

  beforeAll(async () => {
    store = await freshStore(kind);
    const open = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
    await registerGroup(open.url, 'accounts');
    await registerGroup(open.url, 'orders');
    await open.stop();
    broker = await startBrokerProcess({
      store: store.url,
      rabbitmq: rabbitmqUrl(),
      environment: {
        ESCROW_API_KEYS: `a:producer:accounts:${KEYS.accounts},o:producer:orders:${KEYS.orders},ops:operator:${KEYS.operator}`,
      },
    });
  });
  afterAll(async () => {
    await broker.stop();
    await store.remove();
  });

  const as = (key: keyof typeof KEYS) => ({ authorization: `Bearer ${KEYS[key]}` });
  const stored = async () =>
    (await call(`${broker.url}/v1/transactions?limit=200`, 'GET', undefined, as('operator'))).body
      .transactions.length as number;
  const message = { topic: 'user', routingKey: 'registered', data: { userId: 7 } };
  const prepare = (body: unknown, key: keyof typeof KEYS = 'accounts') =>
    call(`${broker.url}/v1/transactions`, 'POST', body, as(key));
  const good = { producerGroup: 'accounts', messages: [message] };
  const withMessage = (change: object) => ({ ...good, messages: [{ ...message, ...change }] });

  const refusals: [string, unknown, number, string, RegExp][] = [
    ['an unknown field', { ...good, mesages: [] }, 400, 'UNKNOWN_FIELD', /mesages/],
    [
      'an unknown field of a message',
      withMessage({ rotingKey: 'x' }),
      400,
      'UNKNOWN_FIELD',
      /rotingKey/,
    ],
    ['a wrong type', { ...good, messages: 'none' }, 400, 'INVALID_REQUEST', /array/],
    ['no message', { ...good, messages: [] }, 400, 'INVALID_REQUEST', /at least one/],
    ['an id that is no UUID', { ...good, id: 'order-17' }, 400, 'INVALID_ID', /version 7/],
    [
      'an id of version 4',
      { ...good, id: '3b241101-e2bb-4255-8caf-4136c566a962' },
      400,
      'INVALID_ID',
      /version 7/,
    ],
    [
      '33 messages',
      { ...good, messages: Array.from({ length: 33 }, () => message) },
      400,
      'TOO_MANY_MESSAGES',
      /at most 32/,
    ],
    [
      'bad base64',
      withMessage({ data: undefined, dataBase64: 'a-_b' }),
      400,
      'INVALID_BASE64',
      /base64/,
    ],
    [
      'control characters in a topic',
      withMessage({ topic: 'us\u0007er' }),
      400,
      'INVALID_NAME',
      /topic/,
    ],
    [
      'control characters in a routing key',
      withMessage({ routingKey: 'a\nb' }),
      400,
      'INVALID_NAME',
      /control/,
    ],
    [
      'control characters in a business key',
      { ...good, businessKeys: ['a\u0000b'] },
      400,
      'INVALID_NAME',
      /control/,
    ],
    [
      'a group name with blanks',
      { ...good, producerGroup: 'my group' },
      400,
      'INVALID_NAME',
      /group/,
    ],
    ['a CC header', withMessage({ headers: { CC: 'other' } }), 400, 'FORBIDDEN_HEADER', /CC/],
    ['a BCC header', withMessage({ headers: { bcc: 'other' } }), 400, 'FORBIDDEN_HEADER', /bcc/],
    [
      'an x- header',
      withMessage({ headers: { 'x-delay': 1 } }),
      400,
      'FORBIDDEN_HEADER',
      /x-delay/,
    ],
    [
      'an escrow- header',
      withMessage({ headers: { 'escrow-topic': 'a' } }),
      400,
      'FORBIDDEN_HEADER',
      /escrow/,
    ],
    [
      'both data and dataBase64',
      withMessage({ dataBase64: 'AAAA' }),
      400,
      'INVALID_REQUEST',
      /one of the three/,
    ],
    [
      'a message that may be dropped and is expected',
      { ...withMessage({ ifUnrouted: 'drop' }), expects: ['phone-index'] },
      400,
      'INVALID_REQUEST',
      /never consumed/,
    ],
    [
      'a message for a queue of RabbitMQ itself',
      withMessage({ topic: 'amq.topic' }),
      400,
      'INVALID_NAME',
      /amq/,
    ],
    ['JSON that is none', '{"producerGroup": ', 400, 'INVALID_JSON', /./],
    [
      'an id of last year',
      { ...good, id: '018cc251-f400-7cc3-98c4-dc0c0c07398f' },
      422,
      'ID_TIME_OUT_OF_RANGE',
      /29 days/,
    ],
    [
      'an id of next century',
      { ...good, id: '03c60551-f400-7cc3-98c4-dc0c0c07398f' },
      422,
      'ID_TIME_OUT_OF_RANGE',
      /ahead/,
    ],
  ];
  test.each(refusals)(
    '%s is refused and stores nothing (F21)',
    async (_, body, status, code, says) => {
      const before = await stored();
      const answer = await prepare(body);
      expect(answer).toMatchObject({ status, body: { code, status } });
      expect(answer.headers['content-type']).toContain('application/problem+json');
      expect(answer.body.detail).toMatch(says);
      expect(await stored()).toBe(before);
    },
  );

  test('a body over the limit is refused before it is there whole (F07)', async () => {
    const before = await stored();
    const answer = await prepare(withMessage({ data: 'x'.repeat(1_100_000) }));
    expect(answer).toMatchObject({ status: 413, body: { code: 'BODY_TOO_LARGE' } });
    expect(await stored()).toBe(before);
  });

  test('an unknown producer group is refused with how to register it', async () => {
    const open = await call(
      `${broker.url}/v1/transactions`,
      'POST',
      { ...good, producerGroup: 'strangers' },
      as('accounts'),
    );
    expect(open).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
  });

  test('an unknown id is 404, and so is another group’s (F29)', async () => {
    const unknown = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
    expect(
      await call(
        `${broker.url}/v1/transactions/${unknown}/commit`,
        'POST',
        undefined,
        as('accounts'),
      ),
    ).toMatchObject({ status: 404, body: { code: 'TRANSACTION_NOT_FOUND' } });

    const { id } = (await prepare(good)).body;
    for (const verdict of ['commit', 'rollback']) {
      expect(
        await call(
          `${broker.url}/v1/transactions/${id}/${verdict}`,
          'POST',
          undefined,
          as('orders'),
        ),
      ).toMatchObject({ status: 404, body: { code: 'TRANSACTION_NOT_FOUND' } });
    }
    expect(
      await call(`${broker.url}/v1/transactions/${id}`, 'GET', undefined, as('accounts')),
    ).toMatchObject({ status: 200, body: { state: 'prepared' } });
  });

  test('a missing, a wrong and a foreign key are refused, each in its own way', async () => {
    expect(await call(`${broker.url}/v1/transactions`, 'POST', good)).toMatchObject({
      status: 401,
      body: { code: 'UNAUTHENTICATED' },
    });
    const wrong = { authorization: 'Bearer wrong-key-0123456789' };
    expect(await call(`${broker.url}/v1/transactions`, 'POST', good, wrong)).toMatchObject({
      status: 401,
      body: { code: 'UNAUTHENTICATED' },
    });
    expect(await prepare(good, 'orders')).toMatchObject({
      status: 403,
      body: { code: 'FORBIDDEN' },
    });
    expect(await prepare(good, 'operator')).toMatchObject({
      status: 403,
      body: { code: 'FORBIDDEN' },
    });
    const word = { action: 'commit', operator: 'eve', reason: 'because' };
    const { id } = (await prepare(good)).body;
    expect(
      await call(`${broker.url}/v1/transactions/${id}/resolve`, 'POST', word, as('accounts')),
    ).toMatchObject({ status: 403, body: { code: 'FORBIDDEN' } });
    expect(
      await call(`${broker.url}/v1/transactions/${id}/resolve`, 'POST', word, as('operator')),
    ).toMatchObject({ status: 200, body: { state: 'committed' } });
  });

  test('a check URL that the broker may not call is refused', async () => {
    const answer = await call(
      `${broker.url}/v1/producer-groups/accounts`,
      'PUT',
      { checkUrls: ['http://169.254.169.254/latest/meta-data'] },
      as('accounts'),
    );
    expect(answer).toMatchObject({ status: 422, body: { code: 'CHECK_URL_NOT_ALLOWED' } });
  });

  test('no log line holds a key or a body', async () => {
    await prepare(withMessage({ data: 'canary-in-a-body' }));
    await prepare('{"canary-in-a-body": ');
    const lines = JSON.stringify(broker.log);
    expect(lines).not.toContain('canary-in-a-body');
    for (const key of Object.values(KEYS)) expect(lines).not.toContain(key);
  });

  test('a batch answers each operation for itself', async () => {
    const batch = await call(
      `${broker.url}/v1/batch`,
      'POST',
      {
        operations: [
          { op: 'prepare', ...good, id: '0198f3c2-0000-7cc3-98c4-000000000000' },
          { op: 'prepare', ...good },
          { op: 'prepare', producerGroup: 'orders', messages: [message] },
          { op: 'fly' },
          { op: 'commit', id: '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f' },
        ],
      },
      as('accounts'),
    );
    expect(batch.status).toBe(200);
    expect(batch.body.results.map(({ status }: { status: number }) => status)).toEqual([
      422, 201, 403, 400, 404,
    ]);
  });
});

test('an unknown group is refused where no key stands for one', async () => {
  const store = await freshStore('sqlite');
  const broker = await startBrokerProcess({ store: store.url, rabbitmq: rabbitmqUrl() });
  const answer = await call(`${broker.url}/v1/transactions`, 'POST', {
    producerGroup: 'strangers',
    messages: [{ topic: 'user', data: 1 }],
  });
  expect(answer).toMatchObject({ status: 422, body: { code: 'UNKNOWN_PRODUCER_GROUP' } });
  expect(answer.body.detail).toContain('PUT /v1/producer-groups/strangers');
  await broker.stop();
  await store.remove();
});

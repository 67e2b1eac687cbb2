import { createProducer, defineTopic, type Producer } from '@escrowmq/producer';
import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { createSuppliedData } from '../../producer-sdk/src/local/supplied-data.js';
import { placeOf } from '../../protocol/src/typed-topic.js';
import { type FakeBroker, startFakeBroker } from '../support/fake-broker.js';
import { LIBRARIES, later, moved, schemaThat } from '../support/typed-topics.js';

let broker: FakeBroker;
let producer: Producer;

beforeEach(async () => {
  broker = await startFakeBroker();
  producer = createProducer({ brokers: [broker.address], producerGroup: 'accounts' });
});

afterEach(async () => {
  await producer.close();
  await broker.close();
});

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';

/** The messages of the only operation that the broker has seen. */
function sent(): unknown {
  const [operation] = JSON.parse(broker.requests[0]!.body).operations;
  return operation.messages;
}

describe.each(LIBRARIES)('N10: with schemas of $library', ({ registered, said }) => {
  const user = defineTopic('user', { registered });
  const good = { userId: 7, tags: ['new'] };

  test('data that fit travel as the schema gives them, and the rest of the message as ever', async () => {
    const message = user.message('registered', good, { orderingKey: 'u7', delayMs: 5 });
    await producer.send({ messages: [message, { topic: 'plain', data: 1 }] });
    expect(sent()).toMatchObject([
      { topic: 'user', routingKey: 'registered', data: good, orderingKey: 'u7', delayMs: 5 },
      { topic: 'plain', data: 1 },
    ]);
  });

  test('data that break their schema are refused in the call, by topic, key and path, and nothing is sent', async () => {
    const data = { userId: 'seven', tags: [] } as never;
    for (const call of ['send', 'prepare'] as const) {
      const error = await producer[call]({ messages: [user.message('registered', data)] }).catch(
        (thrown) => thrown,
      );
      expect(error).toMatchObject({
        code: 'INVALID_REQUEST',
        message: `the data of message 0 do not fit topic user, key registered: userId: ${said}`,
        fields: [{ path: 'data.userId', message: said }],
        details: { topic: 'user', routingKey: 'registered', schemaVersion: 1 },
      });
      expect(error.cause.issues[0].message).toBe(said);
    }
    expect(broker.requests).toEqual([]);
  });

  test('of many issues ten are said and all are the cause', async () => {
    const tags = Array.from({ length: 15 }, (_, n) => n) as never;
    const refused = producer.send({ messages: [user.message('registered', { userId: 7, tags })] });
    const error = await refused.catch((thrown) => thrown);
    expect(error.fields).toHaveLength(10);
    expect(error.fields[9].path).toBe('data.tags.9');
    expect(error.message).toMatch(/; and 5 more$/);
    expect(error.cause.issues).toHaveLength(15);
  });
});

test('N10: what travels is taken when the call is made, not when it is sent', async () => {
  const user = defineTopic('user', { registered: z.object({ userId: z.number() }) });
  const data = { userId: 7 };
  const sending = producer.send({ messages: [user.message('registered', data)] });
  data.userId = 8;
  await sending;
  expect(sent()).toMatchObject([{ data: { userId: 7 } }]);
});

test('N10: transforms and dates travel as the schema gives them, where it takes that again', async () => {
  const schema = z.object({
    at: z.coerce.date(),
    phone: z.string().trim().toLowerCase(),
    note: z.string().default('none'),
  });
  const user = defineTopic('user', { registered: schema });
  const at = new Date('2030-01-02T03:04:05.678Z');
  const message = user.message('registered', { at, phone: ' A1 ' });
  await producer.send({ messages: [message] });
  expect(sent()).toMatchObject([{ data: { at: at.toISOString(), phone: 'a1', note: 'none' } }]);
});

test.each([
  [
    'a date that the schema takes as a date only',
    z.object({ at: z.date() }),
    { at: new Date() },
    'at',
  ],
  ['a text that becomes a number', z.object({ n: z.string().transform(Number) }), { n: '1' }, 'n'],
])('N10: %s is refused here, as its consumer would refuse it', async (_, schema, data, path) => {
  const user = defineTopic('user', { registered: schema as z.ZodType<unknown> });
  const refused = producer.send({ messages: [user.message('registered', data)] });
  await expect(refused).rejects.toMatchObject({
    code: 'INVALID_REQUEST',
    message: expect.stringMatching(
      /^the data of message 0 fit once and not again, as they arrive: .* topic user, key registered: .+: Invalid input/,
    ),
    fields: [{ path: `data.${path}` }],
  });
  expect(broker.requests).toEqual([]);
});

test('N10: what a schema gives has to be something that can travel', async () => {
  const schema = z.object({ seen: z.array(z.string()).transform((seen) => new Set(seen)) });
  const user = defineTopic('user', { registered: schema });
  const refused = producer.send({ messages: [user.message('registered', { seen: ['a'] })] });
  await expect(refused).rejects.toMatchObject({
    code: 'INVALID_REQUEST',
    message: expect.stringMatching(/can not travel as the schema of topic user, .*: seen is a Set/),
    fields: [{ path: 'data.seen' }],
  });
});

test('N10: a key with versions says which one in a header, and the data fit that one', async () => {
  const address = { street: 'Weg', city: 'Bremen' };
  await producer.send({
    messages: [
      moved.message('moved', { to: 'Bremen' }, { version: 1 }),
      moved.message('moved', address, { version: 2, headers: { tenant: 'a' } }),
    ],
  });
  expect(sent()).toMatchObject([
    { data: { to: 'Bremen' }, headers: { 'schema-version': 1 } },
    { data: address, headers: { 'schema-version': 2, tenant: 'a' } },
  ]);
  const wrong = moved.message('moved', { to: 'Bremen' } as never, { version: 2 });
  await expect(producer.send({ messages: [wrong] })).rejects.toThrow(
    'the data of message 0 do not fit topic user, key moved, version 2: street: Invalid input',
  );
});

test('N10: a message that is of another key or version than its schema is refused', async () => {
  const message = moved.message('moved', { to: 'Bremen' }, { version: 1 });
  const changes = [
    { routingKey: 'gone' },
    { topic: 'users' },
    { headers: { 'schema-version': 2 } },
  ];
  for (const change of changes) {
    const changed = { ...message, ...change } as typeof message;
    await expect(producer.send({ messages: [changed] })).rejects.toMatchObject({
      code: 'INVALID_REQUEST',
      message: expect.stringContaining('topic user, key moved, version 1'),
    });
  }
  // A copy with more beside it is the same message.
  await producer.send({ messages: [{ ...message, delayMs: 5, headers: { tenant: 'a' } }] });
  expect(sent()).toMatchObject([{ delayMs: 5, headers: { 'schema-version': 1, tenant: 'a' } }]);
});

test('N10: a key, a version or an option that is none is refused where the message is made', () => {
  const untyped = moved as unknown as {
    message(key: unknown, data: unknown, options?: unknown): unknown;
  };
  const refusals: [unknown[], string][] = [
    [['gone', {}], 'topic user has no key gone; it has moved'],
    [['constructor', {}], 'topic user has no key constructor; it has moved'],
    [['moved', {}], 'key moved of topic user has the versions 1, 2; none was given'],
    [['moved', {}, { version: 3 }], 'has the versions 1, 2; 3 is not one of them'],
    [['moved', {}, { version: '1' }], '1 is not one of them'],
    [['moved', {}, { version: 1, delay: 5 }], 'does not know delay'],
    [['moved', {}, 5], 'takes an object with options'],
  ];
  for (const [args, said] of refusals) {
    expect(() => untyped.message(args[0], args[1], args[2])).toThrow(said);
  }
});

test('N10: schemas that answer later are waited for, and refuse in the call', async () => {
  const user = defineTopic('user', { registered: later });
  await producer.send({ messages: [user.message('registered', { userId: 7 })] });
  expect(sent()).toMatchObject([{ data: { userId: 7 } }]);
  const refused = producer.send({ messages: [user.message('registered', { userId: 700 })] });
  await expect(refused).rejects.toThrow('topic user, key registered: userId: is not known');
});

const revoked = () => {
  const { proxy, revoke } = Proxy.revocable({}, {});
  revoke();
  return proxy;
};

test.each<[string, (value: unknown) => unknown, string]>([
  [
    'throws',
    () => {
      throw new TypeError('oops');
    },
    'threw TypeError: oops',
  ],
  ['rejects', () => Promise.reject(new Error('away')), 'threw Error: away'],
  [
    'throws what has no text',
    () => {
      throw Object.create(null);
    },
    'threw an object that has no text',
  ],
  ['answers nothing', () => undefined, 'answered undefined'],
  ['answers a text', () => 'yes', 'answered a string'],
  ['answers an empty object', () => ({}), 'answered an object with neither value nor issues'],
  ['answers later and nonsense', async () => 7, 'answered a number'],
  ['answers a proxy that was revoked', revoked, 'threw TypeError'],
])('N10: a schema that %s is named, and nothing is sent', async (_, validate, said) => {
  const user = defineTopic('user', { registered: schemaThat(validate) });
  const refused = producer.send({ messages: [user.message('registered', 1)] });
  const error = await refused.catch((thrown) => thrown);
  expect(error).toMatchObject({ code: 'INVALID_CONFIGURATION' });
  expect(error.message).toContain(`the schema of topic user, key registered ${said}`);
  expect(broker.requests).toEqual([]);
});

test('N10: a schema that never answers is not waited for without end', async () => {
  const options = { brokers: [broker.address], producerGroup: 'accounts', prepareTimeoutMs: 20 };
  const impatient = createProducer(options);
  const user = defineTopic('user', { registered: schemaThat(() => new Promise(() => {})) });
  const refused = impatient.send({ messages: [user.message('registered', 1)] });
  await expect(refused).rejects.toThrow('did not answer within 20 ms (prepareTimeoutMs)');
  await impatient.close();
});

test('N10: odd issues are said in words, each on one line and bounded', async () => {
  const issues = [
    { message: 'first\nsecond\u0007', path: [{ key: 'list' }, 3, Symbol('odd')] },
    { message: 'x'.repeat(5_000) },
    { message: 7 },
    null,
    {
      get message() {
        throw new Error('no');
      },
    },
    { message: '', path: 'no list' },
  ];
  const user = defineTopic('user', { registered: schemaThat(() => ({ issues })) });
  const error = await producer
    .send({ messages: [user.message('registered', 1)] })
    .catch((thrown) => thrown);
  expect(error.fields[0]).toEqual({ path: 'data.list.3.Symbol(odd)', message: 'first second' });
  expect(error.fields[1].message).toHaveLength(301);
  expect(error.fields).toHaveLength(6);
  expect(error.message).not.toMatch(/\p{Cc}/u);
  const silent = defineTopic('user', { registered: schemaThat(() => ({ issues: [] })) });
  await expect(producer.send({ messages: [silent.message('registered', 1)] })).rejects.toThrow(
    'the schema does not say why',
  );
});

test('N10: data that come with the commit fit their schema, or nothing is committed', async () => {
  const user = defineTopic('user', { registered: later });
  const open = user.open('registered');
  await producer.prepare({ id: ID, messages: [open] });
  expect(sent()).toMatchObject([{ topic: 'user', routingKey: 'registered', dataAtCommit: true }]);
  const commit = (userId: number) => {
    const data = user.data('registered', { userId });
    return producer.commit(ID, { messageData: [{ number: 0, data }] });
  };
  await expect(commit(700)).rejects.toThrow(
    'the data of message 0 do not fit topic user, key registered: userId: is not known',
  );
  expect(broker.requests).toHaveLength(1);
  await commit(7);
  expect(JSON.parse(broker.requests[1]!.body).operations).toMatchObject([
    { op: 'commit', messageData: [{ number: 0, data: { userId: 7 } }] },
  ]);
});

test('N10: data for an open message do not pass for the data of a message', async () => {
  const data = moved.data('moved', { to: 'Bremen' }, { version: 1 });
  await expect(producer.send({ messages: [{ topic: 'user', data }] })).rejects.toThrow(
    'a message is made by message()',
  );
});

describe('N10: data supplied in a transaction', () => {
  const size = { bytes: 100, bytesMax: 200 };
  const supplied = (...messages: object[]) =>
    createSuppliedData({
      id: ID,
      size,
      open: messages.map((message, number) => {
        const place = placeOf(message);
        return place === undefined ? { number } : { number, place };
      }),
    });
  const user = defineTopic('user', { registered: z.object({ userId: z.number() }) });
  const slow = defineTopic('user', { registered: later });

  test('fit their schema, given plainly or with the schema', async () => {
    const one = supplied(user.open('registered'), moved.open('moved', { version: 1 }));
    one.supply({ userId: 7, more: 1 }, 0);
    one.supply(moved.data('moved', { to: 'Bremen' }, { version: 1 }), 1);
    expect(await one.complete()).toEqual([
      { number: 0, data: { userId: 7 } },
      { number: 1, data: { to: 'Bremen' } },
    ]);
  });

  test('are refused at the call when they break it', () => {
    expect(() => supplied(user.open('registered')).supply({ userId: 'seven' })).toThrow(
      `the data supplied for message 0 of ${ID} do not fit topic user, key registered: userId: `,
    );
  });

  test('are refused when they were made for another schema', () => {
    const made = moved.data('moved', { to: 'Bremen' }, { version: 1 });
    expect(() => supplied(user.open('registered')).supply(made)).toThrow(
      'were made for topic user, key moved, version 1, and the message for topic user, key registered',
    );
    expect(() => supplied(moved.open('moved', { version: 2 })).supply(made)).toThrow('version 2');
    expect(() => supplied({}).supply(made)).toThrow('the message without a schema');
  });

  test('are waited for where the schema answers later, and refuse before COMMIT', async () => {
    const good = supplied(slow.open('registered'));
    good.supply({ userId: 7 });
    expect(() => good.supply({ userId: 7 })).toThrow('has its data already');
    expect(await good.complete()).toEqual([{ number: 0, data: { userId: 7 } }]);
    expect(good.all()).toEqual([{ number: 0, data: { userId: 7 } }]);
    const bad = supplied(slow.open('registered'));
    bad.supply({ userId: 700 });
    await expect(bad.complete()).rejects.toThrow('userId: is not known');
  });

  test('are measured as the schema gives them', async () => {
    const big = z.object({ text: z.string(), drop: z.string().optional() });
    const topic = defineTopic('user', {
      big: big.transform(({ text }) => ({ text })),
    });
    const one = supplied(topic.open('big'));
    one.supply({ text: 'short', drop: 'x'.repeat(500) });
    expect(await one.complete()).toEqual([{ number: 0, data: { text: 'short' } }]);
    expect(() => supplied(topic.open('big')).supply({ text: 'x'.repeat(500) })).toThrow(
      '200 are allowed',
    );
  });
});

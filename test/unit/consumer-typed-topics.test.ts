import { setImmediate as nextTurn } from 'node:timers/promises';
import { defineTopic } from '@escrowmq/consumer';
import { placesOf, type TopicPlaces } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { z } from 'zod';
import { parseBatchOptions } from '../../consumer-sdk/src/batch/options.js';
import { causeOf, shortCause } from '../../consumer-sdk/src/cause.js';
import { parseEphemeralOptions } from '../../consumer-sdk/src/ephemeral/options.js';
import { parseSubscribeOptions } from '../../consumer-sdk/src/options.js';
import { Mismatch } from '../../consumer-sdk/src/settle/mismatch.js';
import { afterError } from '../../consumer-sdk/src/settle/next-step.js';
import { type Arrived, fitData } from '../../consumer-sdk/src/typed/fit-data.js';
import { typedHandler } from '../../consumer-sdk/src/typed/typed-handler.js';
import { LIBRARIES, later, moved, schemaThat } from '../support/typed-topics.js';

const arrived = (routingKey: string, data: unknown, version?: unknown): Arrived => ({
  routingKey,
  data,
  contentType: 'application/json',
  headers: version === undefined ? {} : { 'schema-version': version },
});

const places = (topic: object): TopicPlaces => placesOf(topic)!;

/** What is thrown, at once or later. */
async function thrownBy(call: () => unknown): Promise<unknown> {
  try {
    await call();
  } catch (error) {
    return error;
  }
  throw new Error('it fits');
}

describe.each(LIBRARIES)('N10: with schemas of $library', ({ registered, said }) => {
  const user = places(defineTopic('user', { registered }));

  test('a handler gets what the schema gives', () => {
    const data = { userId: 7, tags: ['new'] };
    expect(fitData(user, arrived('registered', data))).toEqual({ data, version: 1 });
  });

  test('data that break their schema fail by topic, key and path, with all issues as the cause', async () => {
    const data = { userId: 'seven', tags: [] };
    const error = await thrownBy(() => fitData(user, arrived('registered', data)));
    expect(error).toBeInstanceOf(Mismatch);
    expect(causeOf(error)).toBe(
      `the data of the message do not fit topic user, key registered: userId: ${said}`,
    );
    const { cause } = (error as { cause: { cause: { issues: { message: string }[] } } }).cause;
    expect(cause.issues[0]?.message).toBe(said);
  });
});

test('N10: what comes from JSON is made into what the schema gives', () => {
  const topic = defineTopic('user', {
    registered: z.object({ at: z.coerce.date(), note: z.string().default('none') }),
  });
  const fit = fitData(places(topic), arrived('registered', { at: '2030-01-02T03:04:05.678Z' }));
  expect(fit).toMatchObject({ data: { at: new Date('2030-01-02T03:04:05.678Z'), note: 'none' } });
});

const address = { street: 'Weg', city: 'Bremen' };

test.each([
  [undefined, { to: 'Bremen' }, 1],
  [1, { to: 'Bremen' }, 1],
  [2, address, 2],
  ['2', address, 2],
])('N10: a message that says version %p fits that one', (version, data, fits) => {
  const fit = fitData(places(moved), arrived('moved', data, version));
  expect(fit).toEqual({ data, version: fits });
});

test.each([3, 0, -1, 1.5, '02', 'two', '', true, {}, '9'.repeat(80)])(
  'N10: a message of version %p, which nobody knows, is refused for good in a sentence',
  async (version) => {
    const error = await thrownBy(() => fitData(places(moved), arrived('moved', address, version)));
    expect(error).toBeInstanceOf(Mismatch);
    expect(causeOf(error)).toMatch(
      /^topic user, key moved: the message was made with version .{0,60} of its schema, and this consumer knows 1, 2; /,
    );
  },
);

test('N10: a key without a schema, and a body that is no JSON, are refused for good in a sentence', async () => {
  const noKey = await thrownBy(() => fitData(places(moved), arrived('gone', 1)));
  expect(causeOf(noKey)).toBe(
    'topic user, key gone: this subscription has no schema for that key; it has moved',
  );
  const bytes = { ...arrived('moved', undefined), contentType: 'image/png' };
  const noJson = await thrownBy(() => fitData(places(moved), bytes));
  expect(causeOf(noJson)).toContain('topic user, key moved: the body of the message is image/png');
  for (const error of [noKey, noJson]) expect(error).toBeInstanceOf(Mismatch);
});

test('N10: data that fit no schema are a dead letter at once, whatever delays are left', () => {
  const policy = { retryDelaysMs: [10, 20], shortened: (ms: number) => ms, now: () => 0 };
  const next = afterError(new Mismatch('no'), { attempts: 0, postponed: 2 }, policy);
  const dead = { step: 'deadLetter', reason: 'mismatch' };
  expect(next).toEqual({ ...dead, attempts: 1, postponed: 2 });
});

test('N10: the cause of a mismatch is not cut, and a receipt gets as much as it takes', async () => {
  const issues = Array.from({ length: 12 }, (_, n) => ({
    message: `${n}: ${'x'.repeat(200)}`,
    path: ['a', n],
  }));
  const topic = defineTopic('user', { registered: schemaThat(() => ({ issues })) });
  const error = await thrownBy(() => fitData(places(topic), arrived('registered', 1)));
  expect(causeOf(error)).toContain(`a.9: 9: ${'x'.repeat(200)}; and 2 more`);
  expect(shortCause(causeOf(error))).toHaveLength(500);
});

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
    'has a then that throws',
    () => ({
      // biome-ignore lint/suspicious/noThenProperty: it is what is tried
      get then() {
        throw new Error('no then');
      },
    }),
    'threw Error: no then',
  ],
  ['answers nonsense', () => 7, 'answered a number'],
  ['answers nonsense later', async () => 'yes', 'answered a string'],
])(
  'N10: a schema that %s fails like a handler, and its message is tried again',
  async (_, validate, said) => {
    const topic = defineTopic('user', { registered: schemaThat(validate) });
    const error = await thrownBy(() => fitData(places(topic), arrived('registered', 1)));
    expect(error).not.toBeInstanceOf(Mismatch);
    expect(causeOf(error)).toContain(`the schema of topic user, key registered ${said}`);
  },
);

test("N10: a thenable of the library's own is waited for like a promise", async () => {
  // biome-ignore lint/suspicious/noThenProperty: it is what is tried
  const answer = { then: (resolve: (result: unknown) => void) => resolve({ value: 8 }) };
  const topic = defineTopic('user', { registered: schemaThat(() => answer) });
  expect(await fitData(places(topic), arrived('registered', 7))).toEqual({ data: 8, version: 1 });
});

test('N10: a handler whose time was over while the schema was asked is not called', async () => {
  let answer = (_result: unknown) => {};
  const pending = new Promise((resolve) => {
    answer = resolve;
  });
  const topic = defineTopic('user', { registered: schemaThat(() => pending) });
  let called = 0;
  const handler = typedHandler((_: never) => {
    called += 1;
  }, places(topic));
  const over = new AbortController();
  const message = { ...arrived('registered', 7), signal: over.signal } as never;
  const ended = thrownBy(() => handler(message));
  over.abort(new Error('out of time'));
  answer({ value: 7 });
  expect(await ended).toMatchObject({ message: 'out of time' });
  await nextTurn();
  expect(called).toBe(0);
});

test('N10: a schema that answers later is waited for before the handler', async () => {
  const topic = places(defineTopic('user', { registered: later }));
  const fit = fitData(topic, arrived('registered', { userId: 7 }));
  expect(fit).toBeInstanceOf(Promise);
  expect(await fit).toEqual({ data: { userId: 7 }, version: 1 });
  const error = await thrownBy(() => fitData(topic, arrived('registered', { userId: 700 })));
  expect(error).toBeInstanceOf(Mismatch);
});

describe('N10: a subscription to a typed topic', () => {
  const user = defineTopic('user', { registered: z.string(), deleted: z.number(), '': z.null() });
  const group = 'index';

  test('is one to its name and its keys', () => {
    const settings = [
      parseSubscribeOptions({ topic: user, group }),
      parseBatchOptions({ topic: user, group }).subscribe,
      parseEphemeralOptions({ topic: user, onGap: () => undefined }),
    ];
    for (const { topic, routingKeys, places: found } of settings) {
      expect({ topic, routingKeys }).toEqual({
        topic: 'user',
        routingKeys: ['registered', 'deleted', ''],
      });
      expect([...found!.byKey.keys()]).toEqual(routingKeys);
    }
    expect(parseSubscribeOptions({ topic: 'user', group })).toMatchObject({
      routingKeys: ['#'],
      places: undefined,
    });
  });

  test('has the schemas of the keys that it names, and no others', async () => {
    const settings = parseSubscribeOptions({ topic: user, group, routingKeys: ['registered'] });
    expect(settings.routingKeys).toEqual(['registered']);
    const error = await thrownBy(() => fitData(settings.places!, arrived('deleted', 7)));
    expect(causeOf(error)).toContain('this subscription has no schema for that key');
  });

  test.each(['gone', '#', 'reg*', 7])(
    'refuses the key %p, which the topic does not have',
    (key) => {
      const routingKeys = [key as string];
      expect(() => parseSubscribeOptions({ topic: user, group, routingKeys })).toThrow(
        `routingKeys has ${key}, and topic user has schemas for registered, deleted, ''`,
      );
    },
  );

  test('refuses what is no topic', () => {
    for (const topic of [{ name: 'user', schemas: {} }, 7, null, { topic: 'user' }]) {
      expect(() => parseSubscribeOptions({ topic: topic as never, group })).toThrow('topic');
    }
  });
});

test.each<[unknown, string]>([
  [{}, 'needs at least one routing key with a schema'],
  [z.string(), 'takes an object with a schema for each routing key, and was given one schema'],
  [undefined, 'was given undefined'],
  [{ 'user.*': z.string() }, 'has the key user.*: schemas stand under whole routing keys'],
  [{ a: { parse: () => 1 } }, 'has an object for key a, which is no Standard Schema'],
  [{ a: 'number' }, 'has a string for key a, which is no Standard Schema'],
  [{ a: { 1: 'number' } }, 'has a string for key a, which is no Standard Schema'],
  [{ a: {} }, 'has an object for key a, which is no Standard Schema'],
  [{ a: { 0: z.string() } }, 'has version 0 of key a: versions are whole numbers from 1 on'],
  [{ a: { v2: z.string() } }, 'has version v2 of key a'],
  [{ ['x'.repeat(300)]: z.string() }, 'a routing key of topic user'],
])('N10: defineTopic refuses schemas %#', (schemas, said) => {
  expect(() => defineTopic('user', schemas as never)).toThrow(said);
});

test('N10: defineTopic refuses a name that no topic has', () => {
  expect(() => defineTopic('amq.topic', { a: z.string() })).toThrow('the name of a topic');
});

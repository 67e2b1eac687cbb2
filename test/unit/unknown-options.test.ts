import * as consumerSdk from '@escrowmq/consumer';
import * as consumerTelemetry from '@escrowmq/consumer/opentelemetry';
import * as producerSdk from '@escrowmq/producer';
import * as producerTelemetry from '@escrowmq/producer/opentelemetry';
import * as testing from '@escrowmq/producer/testing';
import { isEscrowError, refuseUnknown } from '@escrowmq/protocol';
import { afterAll, describe, expect, test } from '@jest/globals';
import { z } from 'zod';

/*
 * Every public function that takes options refuses those that it does not know, and what is no object of
 * options at all. Everything public stands in one of these tables, so that a new one without the check
 * fails here.
 */

const SECRET = 'whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw';
const BROKERS = ['http://127.0.0.1:1'];
const GROUP = { producerGroup: 'accounts' };
const message = { id: '0198f3c2-0000-7000-8000-000000000001-0', group: 'index' };
const producer = producerSdk.createProducer({ brokers: BROKERS, ...GROUP });
const consumer = consumerSdk.createConsumer({ rabbitmq: 'amqp://127.0.0.1:1' });
const check = producerSdk.createCheckHandler({ signingSecret: SECRET, database: pool() });
const poller = producerSdk.createCheckPoller({ brokers: BROKERS, ...GROUP, database: pool() });
const topic = producerSdk.defineTopic('user', { registered: z.number() });
const nothing = async () => undefined;

/** Passes for a pool of mysql2 as far as nobody asks it for a connection. */
function pool() {
  return { getConnection: () => Promise.reject(new Error('no database here')) };
}

afterAll(async () => {
  await Promise.all([producer.close(), consumer.close(), poller.close()]);
});

/** The options of a plugin hold its handler as well. */
const withHandler = <H extends object>(handler: H, options: unknown): never =>
  (typeof options === 'object' && options !== null ? { ...handler, ...options } : options) as never;

/** What is passed on to them. */
type Take = (options: never) => unknown;

const TAKE_OPTIONS: Record<string, Take> = {
  createProducer: producerSdk.createProducer,
  createCheckHandler: producerSdk.createCheckHandler,
  createCheckPoller: producerSdk.createCheckPoller,
  createCompensationHandler: producerSdk.createCompensationHandler,
  createOutboxRelay: producerSdk.createOutboxRelay,
  ensureBarrierTable: (options) => producerSdk.ensureBarrierTable(pool() as never, options),
  ensureOutboxTable: (options) => producerSdk.ensureOutboxTable(pool() as never, options),
  ensureCompensationTable: (options) =>
    producerSdk.ensureCompensationTable(pool() as never, options),
  ensureConsumedTable: (options) => consumerSdk.ensureConsumedTable(pool() as never, options),
  startHousekeeping: (options) => producerSdk.startHousekeeping(pool() as never, options),
  'consumer startHousekeeping': (options) =>
    consumerSdk.startHousekeeping(pool() as never, options),
  nodeCheckListener: (options) => producerSdk.nodeCheckListener(check, options),
  expressCheckHandler: (options) => producerSdk.expressCheckHandler(check, options),
  nestCheckMiddleware: (options) => producerSdk.nestCheckMiddleware(check, options),
  fetchCheckHandler: (options) => producerSdk.fetchCheckHandler(check, options),
  fastifyCheckPlugin: (options) =>
    producerSdk.fastifyCheckPlugin({} as never, withHandler({ check }, options)),
  nodeCompensationListener: (options) => producerSdk.nodeCompensationListener(check, options),
  expressCompensationHandler: (options) => producerSdk.expressCompensationHandler(check, options),
  nestCompensationMiddleware: (options) => producerSdk.nestCompensationMiddleware(check, options),
  fetchCompensationHandler: (options) => producerSdk.fetchCompensationHandler(check, options),
  fastifyCompensationPlugin: (options) =>
    producerSdk.fastifyCompensationPlugin(
      {} as never,
      withHandler({ compensation: check }, options),
    ),
  'producer.prepare': (options) => producer.prepare(options),
  'producer.send': (options) => producer.send(options),
  'producer.commit': (options) => producer.commit(message.id.slice(0, -2), options),
  'producer.cancel': (options) => producer.cancel(message.id.slice(0, -2), options),
  'producer.query': (options) => producer.query(message.id.slice(0, -2), options),
  'producer.waitForBusinessKey': (options) => producer.waitForBusinessKey('key', options),
  'producer.registerGroup': (options) => producer.registerGroup(options),
  'producer.transaction': (options) =>
    producer.transaction(pool() as never, { topic: 'user', data: 1 }, nothing, options),
  'producer.enlist': (options) =>
    producer.enlist({ kind: 'transaction' } as never, { topic: 'user', data: 1 }, options),
  'poller.runOnce': (options) => poller.runOnce(options),
  createFaultKit: testing.createFaultKit,
  'producer openTelemetry': producerTelemetry.openTelemetry,
  'consumer openTelemetry': consumerTelemetry.openTelemetry,
  createConsumer: consumerSdk.createConsumer,
  createDuplicateFront: consumerSdk.createDuplicateFront,
  once: (options) => consumerSdk.once(pool() as never, message, nothing, options),
  onceBatch: (options) => consumerSdk.onceBatch(pool() as never, [message], nothing, options),
  latest: (options) => consumerSdk.latest(pool() as never, message, options, nothing),
  'topic.message': (options) => topic.message('registered', 7, options),
  'topic.open': (options) => topic.open('registered', options),
  'topic.data': (options) => topic.data('registered', 7, options),
  'consumer.subscribe': (options) => consumer.subscribe(options, nothing),
  'consumer.subscribeBatch': (options) => consumer.subscribeBatch(options, nothing),
  'consumer.subscribeEphemeral': (options) => consumer.subscribeEphemeral(options, nothing),
};

/** Public and without options; most take a database, or an error. */
const TAKE_NONE = [
  'purgeBarrier purgeOutbox purgeCompensations purgeConsumed ensureLatestTable isEscrowError EscrowError',
  'PermanentError RetryLater producer.rollback producer.close poller.start poller.close',
  'consumer.pause consumer.resume consumer.close defineTopic',
].flatMap((line) => line.split(' '));

const methodsOf = (name: string, object: object) =>
  Object.entries(object).flatMap(([key, value]) =>
    typeof value === 'function' ? [`${name}.${key}`] : [],
  );
const functionsOf = (module: object) =>
  Object.entries(module).flatMap(([key, value]) => (typeof value === 'function' ? [key] : []));

describe('N12: options that are none', () => {
  test('everything public stands in a table here', () => {
    const found = [
      ...functionsOf(producerSdk),
      ...functionsOf(consumerSdk),
      ...functionsOf(testing),
      ...functionsOf(producerTelemetry).map((name) => `producer ${name}`),
      ...functionsOf(consumerTelemetry).map((name) => `consumer ${name}`),
      ...methodsOf('producer', producer),
      ...methodsOf('consumer', consumer),
      ...methodsOf('poller', poller),
      ...methodsOf('topic', topic),
    ];
    // Both SDKs have one of that name.
    const taking = Object.keys(TAKE_OPTIONS).filter(
      (name) => name !== 'consumer startHousekeeping',
    );
    const known = [...taking, ...TAKE_NONE];
    expect([...new Set(found)].sort()).toEqual(known.sort());
  });

  const failureOf = async (call: () => unknown) => {
    try {
      await call();
    } catch (error) {
      return error;
    }
    return undefined;
  };

  test.each(Object.entries(TAKE_OPTIONS))(
    '%s refuses one that it does not know',
    async (_, take) => {
      const error = await failureOf(() => take({ noSuchOption: 1 } as never));
      expect(error).toMatchObject({ code: 'UNKNOWN_FIELD' });
      expect(String(error)).toContain('noSuchOption');
    },
  );

  test.each(Object.entries(TAKE_OPTIONS))(
    '%s refuses what is no object, in words',
    async (_, take) => {
      for (const given of [null, 'text', 7]) {
        const error = await failureOf(() => take(given as never));
        expect(isEscrowError(error) ? error.code : error).toMatch(/^INVALID_/);
      }
    },
  );

  test('a slip of the keyboard is answered with the option that was meant', async () => {
    expect(() =>
      producerSdk.createProducer({ brokers: BROKERS, ...GROUP, apikey: 'x' } as never),
    ).toThrow(
      /createProducer does not know apikey: apikey is not an option; apiKey is\. It knows brokers, /,
    );
    expect(() => producerSdk.createProducer({ broker: BROKERS[0], ...GROUP } as never)).toThrow(
      /broker is not an option; brokers is/,
    );
    expect(() => refuseUnknown({ color: 1 }, ['topic'], 'it')).toThrow(
      /does not know color: color is not an option\. It knows topic/,
    );
  });

  test.each<[string, () => unknown, RegExp]>([
    [
      'brokers that are a text',
      () => producerSdk.createProducer({ brokers: 'http://a' as never, ...GROUP }),
      /brokers must be a list of addresses.*is a string/,
    ],
    [
      'brokers that are missing',
      () => producerSdk.createProducer({ ...GROUP } as never),
      /brokers must be a list.*undefined/,
    ],
    [
      'no options',
      () => producerSdk.createProducer(undefined as never),
      /createProducer takes an object with options .*undefined/,
    ],
    [
      'no handler',
      () => consumer.subscribe({ topic: 'user', group: 'index' }, undefined as never),
      /subscribe takes a function as its handler, and was given undefined/,
    ],
    [
      'no handler of batches',
      () => consumer.subscribeBatch({ topic: 'user', group: 'index' }, {} as never),
      /a function as its handler.*an object/,
    ],
    [
      'no handler of one instance',
      () => consumer.subscribeEphemeral({ topic: 'user', onGap: nothing }, null as never),
      /a function as its handler.*null/,
    ],
    [
      'no message',
      () => consumerSdk.once(pool() as never, undefined as never, nothing),
      /once takes the message that a handler got/,
    ],
    [
      'no work',
      () => consumerSdk.once(pool() as never, message, undefined as never),
      /once takes a function as its work/,
    ],
    [
      'no list of messages',
      () => consumerSdk.onceBatch(pool() as never, message as never, nothing),
      /onceBatch takes a list of messages/,
    ],
    [
      'options and work in the order of once',
      () =>
        consumerSdk.latest(
          pool() as never,
          message,
          nothing as never,
          { key: 'k', at: 1 } as never,
        ),
      /latest takes an object with options/,
    ],
    [
      'a front that is none',
      () => consumerSdk.once(pool() as never, message, nothing, { front: {} as never }),
      /a function as its front\.isApplied/,
    ],
    [
      'no messages of a transaction',
      () => producer.transaction(pool() as never, undefined as never, nothing),
      /a message, or a list of messages/,
    ],
    [
      'a callback in their place',
      () => producer.transaction(pool() as never, nothing as never, undefined as never),
      /transaction takes a function as its callback/,
    ],
    [
      'no compensate',
      () =>
        producerSdk.createCompensationHandler({ signingSecret: SECRET, database: pool() } as never),
      /a function as its compensate/,
    ],
    [
      'no check handler',
      () => producerSdk.nodeCheckListener(undefined as never),
      /a function as its check handler/,
    ],
    [
      'a negative wait',
      () => producer.query(message.id.slice(0, -2), { waitMs: -1 }),
      /waitMs of query is a number of milliseconds/,
    ],
  ])('%s: a sentence says what is missing', async (_, call, said) => {
    const error = await failureOf(call);
    expect(isEscrowError(error)).toBe(true);
    expect(String(error)).toMatch(said);
  });
});

describe('U16: what no header can carry', () => {
  const withKey = (apiKey: unknown) => () =>
    producerSdk.createProducer({ brokers: BROKERS, ...GROUP, apiKey: apiKey as string });

  test.each<[string, unknown, RegExp]>([
    [
      'a line break at its end',
      'a-key-of-16-chars\n',
      /apiKey has the character U\+000A at its end.*read from a file/,
    ],
    ['a line break inside', 'a-key\r\nx-evil: 1', /U\+000D at place 6 of 16/],
    ['a space', 'a key', /U\+0020/],
    ['a letter that is no ASCII', 'schlüssel', /U\+00FC/],
    ['nothing in it', '', /apiKey is empty/],
    ['no text', 7, /apiKey is a number/],
  ])('a key with %s is refused, and not shown', (_, key, said) => {
    expect(withKey(key)).toThrow(said);
    expect(() => withKey(key)()).not.toThrow(/key-of-16|schl|evil/);
    const other = { brokers: BROKERS, ...GROUP, database: pool(), apiKey: key as string };
    expect(() => producerSdk.createCheckPoller(other)).toThrow(said);
    expect(() => producerSdk.createOutboxRelay(other)).toThrow(said);
  });

  test.each([
    ['http://127.0.0.1:7171\n', /white space or a line break/],
    [' http://127.0.0.1:7171', /white space or a line break/],
    ['http://127.0.0.1:7171/v1', /path/],
    ['http://127.0.0.1:7171/?a=1', /query/],
    ['http://user:secret@127.0.0.1', /without user, password/],
    [7, /http\(s\)/],
  ])('the address %p is refused in words', (address, said) => {
    const create = () => producerSdk.createProducer({ brokers: [address as string], ...GROUP });
    expect(create).toThrow(said);
    expect(create).not.toThrow(/secret/);
  });

  test.each([` ${SECRET}`, 'whsec_', `${SECRET}ü`])(
    'the signing secret %p is refused',
    (signingSecret) => {
      const create = () => producerSdk.createCheckHandler({ signingSecret, database: pool() });
      expect(create).toThrow(/signingSecret 1/);
      expect(create).not.toThrow(/MfKQ9r8/);
    },
  );
});

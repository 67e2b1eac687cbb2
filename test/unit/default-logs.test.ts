import { createStderrLog, inSpan, type StderrLine } from '@escrowmq/database';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import { logTo } from '../../consumer-sdk/src/default-log.js';
import type { ConsumerEvent } from '../../consumer-sdk/src/events.js';
import { type Logger, loggerOf } from '../../producer-sdk/src/logger.js';
import { HOSTILE_ERRORS } from '../support/hostile-errors.js';

let said: { level: string; text: string }[];

beforeEach(() => {
  said = [];
  for (const level of ['warn', 'error'] as const) {
    jest.spyOn(console, level).mockImplementation((text) => void said.push({ level, text }));
  }
});

afterEach(() => {
  jest.restoreAllMocks();
  jest.useRealTimers();
});

const FAILED: ConsumerEvent = {
  event: 'retryScheduled',
  topic: 'user',
  group: 'index',
  messageId: 'm-0',
  attempts: 1,
  delayMs: 1_000,
  cause: 'Error: boom',
  error: new Error('boom', { cause: new TypeError('the root') }),
};

describe('N04: nothing that goes wrong is silent', () => {
  test('without a logger a failure is said with its stack and its causes', () => {
    logTo(undefined)(FAILED);
    expect(said).toHaveLength(1);
    expect(said[0]?.level).toBe('warn');
    expect(said[0]?.text).toMatch(
      /^escrowmq consumer: a handler failed; its message comes again \{.*messageId: m-0.*\}\n {2}Error: boom\n {2}\s+at /,
    );
    expect(said[0]?.text).toContain('caused by TypeError: the root');
  });

  test('what goes as it should is not said', () => {
    logTo(undefined)({ event: 'connected', connection: 'consuming' });
    expect(said).toEqual([]);
  });

  test('N02: instances that disagree are said one by one, with both sides', () => {
    const side = (host: string) => ({ host, instance: `of-${host}`, version: '0.2.0' });
    const log = logTo(undefined);
    for (const host of ['there', 'elsewhere']) {
      log({
        event: 'groupDisagrees',
        topic: 'user',
        group: 'index',
        about: 'routingKeys',
        mine: 'a.*',
        theirs: 'b.*',
        me: side('here'),
        other: side(host),
      });
    }
    expect(said.map(({ level }) => level)).toEqual(['warn', 'warn']);
    for (const word of ['a.*', 'b.*', 'here (of-here, 0.2.0)', 'there (of-there, 0.2.0)']) {
      expect(said[0]?.text).toContain(word);
    }
    expect(said[1]?.text).toContain('elsewhere (of-elsewhere, 0.2.0)');
  });

  test('of what repeats there is one line in ten seconds, which says how many there were', () => {
    jest.useFakeTimers();
    const log = createStderrLog('it');
    const line: StderrLine = { level: 'warn', kind: 'a', text: 'failed' };
    for (let n = 0; n < 1_000; n += 1) log(line);
    log({ ...line, kind: 'b', text: 'another kind' });
    expect(said.map(({ text }) => text)).toEqual(['it: failed', 'it: another kind']);
    jest.advanceTimersByTime(10_000);
    expect(said.at(-1)?.text).toBe('it: failed (999 times in 10 s)');
    log(line);
    jest.advanceTimersByTime(10_000);
    expect(said).toHaveLength(4);
    jest.advanceTimersByTime(60_000);
    log(line);
    expect(said).toHaveLength(5);
  });

  test.each(Object.entries(HOSTILE_ERRORS))('%s is said', (_, make) => {
    logTo(undefined)({ ...FAILED, error: make() });
    loggerOf(undefined).error({ error: make(), reason: make() }, 'it failed');
    expect(said.map(({ level }) => level)).toEqual(['warn', 'error']);
  });
});

const turn = () => new Promise(setImmediate);
const boom = () => {
  throw new Error('the logger is broken');
};

describe('U08: a logger that fails changes nothing', () => {
  test.each<[string, unknown]>([
    ['throws', { warn: boom, error: boom }],
    ['rejects', { warn: async () => boom(), error: async () => boom() }],
    ['has no functions', {}],
    ['has getters that throw', Object.defineProperty({}, 'warn', { get: boom })],
    ['is a proxy whose traps throw', new Proxy({}, { get: boom })],
    // biome-ignore lint/suspicious/noThenProperty: it is what is tried
    ['answers with a then that throws', { warn: () => ({ then: boom }) }],
  ])('of a producer: one that %s is told of once, and its lines go to stderr', async (_, given) => {
    const logger = loggerOf(given as Logger);
    logger.warn({ transactionId: 'a' }, 'first');
    await turn();
    logger.warn({ transactionId: 'b' }, 'second');
    await turn();
    expect(said.map(({ text }) => text.split('\n')[0])).toEqual([
      'escrowmq producer: the logger failed at a line of level warn; what it does not take goes here',
      'escrowmq producer: first {transactionId: a}',
      'escrowmq producer: second {transactionId: b}',
    ]);
  });

  test('of a producer: one that works gets everything, as its own method', () => {
    const lines: unknown[] = [];
    class Kept {
      readonly #lines = lines;
      warn(...line: unknown[]) {
        this.#lines.push(line);
      }
      error() {}
    }
    const logger = loggerOf(new Kept());
    loggerOf(logger).warn({ a: 1 }, 'text');
    expect(lines).toEqual([[{ a: 1 }, 'text']]);
    expect(said).toEqual([]);
  });

  test.each<[string, () => unknown]>([
    ['throws', boom],
    ['rejects', async () => boom()],
    [
      'rejects with what has no text',
      () => Promise.reject(HOSTILE_ERRORS['a proxy that was revoked']?.()),
    ],
  ])(
    'of a consumer: one that %s is told of once, and its events go to stderr',
    async (_, logger) => {
      const log = logTo(logger);
      log(FAILED);
      log({ event: 'connected', connection: 'consuming' });
      await turn();
      const lines = said.map(({ text }) => text.split('\n')[0] ?? '');
      expect(lines).toHaveLength(2);
      expect(lines[0]).toContain('the logger failed at the event retryScheduled');
      expect(lines[1]).toContain('a handler failed');
    },
  );

  test('a console that throws is no reason to fail', () => {
    jest.spyOn(console, 'warn').mockImplementation(boom);
    expect(() => logTo(undefined)(FAILED)).not.toThrow();
  });
});

const forever = () => new Promise(() => {});

describe('U07: a tracer decides nothing', () => {
  type Open = (call: (given?: string) => Promise<number>) => unknown;
  test.each<[string, Open, number]>([
    ['works', (call) => call('trace'), 0],
    ['throws before the work', boom, 1],
    ['throws after it has called the work', (call) => [call('trace'), boom()], 1],
    ['calls the work twice', async (call) => [await call('trace'), await call('trace')], 0],
    ['never calls the work', () => 'nothing', 1],
    ['never ends', (call) => Promise.race([call('trace').then(forever), forever()]), 0],
    ['begins never', forever, 0],
    ['swallows the result', async (call) => void (await call('trace')), 0],
  ])('one that %s', async (_, open, failures) => {
    const failed: unknown[] = [];
    let calls = 0;
    const work = async () => {
      calls += 1;
      return 7;
    };
    await expect(inSpan<string, number>(open, work, (error) => failed.push(error))).resolves.toBe(
      7,
    );
    await turn();
    expect([calls, failed.length]).toEqual([1, failures]);
  });

  test('the error of the work is thrown, also when the tracer swallows it', async () => {
    const error = new Error('of the work');
    const work = () => Promise.reject<number>(error);
    const swallow: Open = (call) => call().catch(() => 0);
    const failed: unknown[] = [];
    await expect(inSpan<string, number>(swallow, work, (e) => failed.push(e))).rejects.toBe(error);
    const pass: Open = (call) => call();
    await expect(inSpan<string, number>(pass, work, (e) => failed.push(e))).rejects.toBe(error);
    await turn();
    expect(failed).toEqual([]);
  });
});

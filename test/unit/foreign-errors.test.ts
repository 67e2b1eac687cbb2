import { callForeign, meaningOf, tellForeign } from '@escrowmq/database';
import { isEscrowError, stackOfError, textOfError } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import { causeOf } from '../../consumer-sdk/src/cause.js';
import { Stop } from '../../consumer-sdk/src/delivery/stop.js';
import { afterError } from '../../consumer-sdk/src/settle/next-step.js';
import { HOSTILE_ERRORS } from '../support/hostile-errors.js';

const HOSTILE = Object.entries(HOSTILE_ERRORS);

describe('U07: whatever a user throws is an error like any other', () => {
  test.each(HOSTILE)('%s has a text, a stack and a next step', (_, make) => {
    const error = make();
    for (const say of [textOfError, stackOfError, causeOf]) {
      const said = say(error);
      expect(typeof said).toBe('string');
    }
    expect(causeOf(error).length).toBeLessThanOrEqual(500);
    expect(typeof isEscrowError(error)).toBe('boolean');
    expect(meaningOf(error)).toBeUndefined();
    const policy = { retryDelaysMs: [1_000], shortened: (ms: number) => ms, now: () => 0 };
    const next = afterError(error, { attempts: 0, postponed: 0 }, policy);
    expect(next).toMatchObject({ step: 'retry', attempts: 1 });
  });

  test('an ordinary error is told with its stack and its causes, each once', () => {
    const cause = new TypeError('the reason');
    const said = stackOfError(new Error('the failure', { cause }));
    expect(said).toMatch(
      /^Error: the failure\n\s+at .*foreign-errors[\s\S]*caused by TypeError: the reason/,
    );
    expect(stackOfError(new AggregateError([cause], 'many'))).toContain('one of TypeError');
    const cycle: Error = new Error('round');
    cycle.cause = cycle;
    expect(stackOfError(cycle).match(/Error: round/g)?.length).toBeLessThan(10);
  });
});

/** How a call of foreign code ended: settled in one macrotask, whatever it returned. */
async function endOf(call: () => unknown): Promise<unknown[]> {
  const ends: unknown[] = [];
  callForeign(call, {
    returned: (value) => ends.push({ returned: value }),
    threw: (error) => ends.push({ threw: error }),
  });
  await new Promise(setImmediate);
  return ends;
}

const withThen = (on: object, then: (resolve: (value: number) => void) => void) =>
  Object.defineProperty(on, 'then', { value: then });

describe('U07: whatever a user returns ends a call exactly once', () => {
  const boom = new Error('boom');
  const throws = () => {
    throw boom;
  };
  const nativeWithThen = () => withThen(Promise.resolve(7), throws);
  test.each<[string, () => unknown, unknown]>([
    ['a value', () => 7, { returned: 7 }],
    ['a promise', async () => 7, { returned: 7 }],
    ['a rejection', async () => throws(), { threw: boom }],
    ['a throw', throws, { threw: boom }],
    [
      'a then that throws when it is looked at',
      () => Object.defineProperty({}, 'then', { get: throws }),
      { threw: boom },
    ],
    ['a then that throws', () => withThen({}, throws), { threw: boom }],
    [
      'a then that resolves and then throws',
      () =>
        withThen({}, (resolve) => {
          resolve(7);
          throws();
        }),
      { returned: 7 },
    ],
    [
      'a function with a then',
      () =>
        withThen(
          () => {},
          (resolve) => resolve(7),
        ),
      { returned: 7 },
    ],
    ['a promise with a then of its own', nativeWithThen, { returned: 7 }],
  ])('%s', async (_, call, end) => {
    expect(await endOf(call)).toEqual([end]);
  });

  test('what is told to foreign code comes back to nobody', async () => {
    const failures: unknown[] = [];
    tellForeign(throws, (error) => failures.push(error));
    tellForeign(
      async () => throws(),
      (error) => failures.push(error),
    );
    await new Promise(setImmediate);
    expect(failures).toEqual([boom, boom]);
  });
});

describe('U07: listeners of message.signal', () => {
  test('what they throw, and reject with, is told and ends no process', async () => {
    const failures: unknown[] = [];
    const stop = new Stop((error) => failures.push(error));
    const { signal } = stop;
    const heard: string[] = [];
    const boom = new Error('boom');
    const fail = () => {
      throw boom;
    };
    const removed = () => heard.push('removed');
    signal.addEventListener('abort', fail);
    signal.addEventListener('abort', async () => fail());
    signal.addEventListener('abort', { handleEvent: fail });
    signal.addEventListener('abort', removed);
    signal.removeEventListener('abort', removed);
    signal.addEventListener('abort', () => heard.push('heard'), { once: true });
    signal.onabort = fail;
    signal.addEventListener('abort', () => heard.push('last'));
    stop.stop('over');
    await new Promise(setImmediate);
    expect(failures).toEqual([boom, boom, boom, boom]);
    expect(heard).toEqual(['heard', 'last']);
    expect(AbortSignal.any([signal]).aborted).toBe(true);
  });
});

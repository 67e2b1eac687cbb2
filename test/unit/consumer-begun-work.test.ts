import { setTimeout as pause } from 'node:timers/promises';
import { describe, expect, test } from '@jest/globals';
import { workOn } from '../../consumer-sdk/src/delivery/begun-work.js';
import { type CallEnd, callHandler } from '../../consumer-sdk/src/delivery/handler-call.js';
import { newCall } from '../../consumer-sdk/src/delivery/new-call.js';
import { Stop } from '../../consumer-sdk/src/delivery/stop.js';
import { TimeLimits } from '../../consumer-sdk/src/delivery/time-limits.js';
import type { ConsumerEvent } from '../../consumer-sdk/src/events.js';
import { until } from '../support/until.js';

const ABOUT = { topic: 'user', group: 'index' };
const ID = '0198f3c2-0000-7000-8000-000000000001-0';

/** A handler that begins work as `once` does, and how its call ended. */
function handle(handler: () => unknown, limitMs = 10_000) {
  const events: ConsumerEvent[] = [];
  const ends: CallEnd[] = [];
  const { stop, work } = newCall(ABOUT, [ID], (event) => events.push(event));
  const limits = new TimeLimits(limitMs);
  const ended = (end: CallEnd) => ends.push(end);
  callHandler({ call: handler, stop, work, abandoned: new Stop(), limits, ended });
  return { events, ends, stop, work };
}

/** By no more than the id and the group, as `once` finds it for `{ id, group }`. */
const begin = <T>(work: Promise<T>) => workOn(ID, ABOUT.group)?.follow('once', work) ?? work;

function deferred() {
  let resolve = () => {};
  let reject = (_: Error) => {};
  const promise = new Promise<void>((...settle) => {
    [resolve, reject] = settle;
  });
  return { promise, resolve, reject };
}

describe('N01: a handler has to see to the end of what it began', () => {
  test('one that ends while its work is open has failed, and is over when the work is', async () => {
    const open = deferred();
    const { ends } = handle(() => void begin(open.promise));
    await pause(10);
    expect(ends).toEqual([]);
    open.resolve();
    await until('the call is over', () => ends.length === 1);
    expect(ends[0]).toMatchObject({
      error: {
        code: 'TRANSACTION_MISUSED',
        message: `the handler of message ${ID} ended while its once was still under way: await it, or return its promise. So it has failed, and is not acknowledged`,
      },
    });
    expect(workOn(ID, ABOUT.group)).toBeUndefined();
  });

  test.each<[string, (work: Promise<void>) => unknown]>([
    ['awaits it', async (work) => void (await begin(work))],
    ['returns it', (work) => begin(work)],
    ['awaits what is made of it', async (work) => void (await Promise.all([begin(work)]))],
    [
      'catches its failure',
      async () => void (await begin(Promise.reject(new Error('x'))).catch(() => {})),
    ],
  ])('one that %s succeeds', async (_, handler) => {
    const open = deferred();
    const { ends } = handle(() => handler(open.promise));
    open.resolve();
    await until('the call is over', () => ends.length === 1);
    expect(ends[0]).toHaveProperty('result');
  });

  test('one that never looks at work that failed has failed, with its error as the cause', async () => {
    const error = new Error('no such table');
    const { ends } = handle(async () => {
      void begin(Promise.reject(error));
      await pause(5);
    });
    await until('the call is over', () => ends.length === 1);
    expect(ends[0]).toMatchObject({
      error: {
        message: expect.stringContaining(
          'never awaited its once, which failed: Error: no such table',
        ),
        cause: error,
      },
    });
  });

  test('its own error counts before that of work it left open', async () => {
    const open = deferred();
    const error = new Error('its own');
    const { ends } = handle(async () => {
      void begin(open.promise);
      throw error;
    });
    open.reject(new Error('later'));
    await until('the call is over', () => ends.length === 1);
    expect(ends).toEqual([{ error }]);
  });

  test('work that hangs holds the delivery for the time of the handler, and no longer', async () => {
    const { ends, stop } = handle(() => void begin(new Promise(() => {})), 30);
    await until('the call is over', () => ends.length === 1);
    expect(ends[0]).toMatchObject({ error: { code: 'TRANSACTION_MISUSED' } });
    expect(stop.isStopped).toBe(true);
  });

  test('work that begins when the delivery is settled is told', async () => {
    const { work, events, ends } = handle(() => 'done');
    expect(ends).toHaveLength(1);
    await work.follow('latest', Promise.resolve());
    expect(events).toEqual([{ event: 'lateWork', call: 'latest', messageId: ID, ...ABOUT }]);
  });

  test('handlers of several groups, and of the same message twice, are told apart', async () => {
    const other = newCall({ topic: 'user', group: 'audit' }, [ID], () => {});
    const first = newCall(ABOUT, [ID], () => {});
    const again = newCall(ABOUT, [ID], () => {});
    for (const { work } of [other, first, again]) work.start();
    expect(workOn(ID, 'index')).toBe(again.work);
    again.work.end();
    expect(workOn(ID, 'index')).toBe(first.work);
    expect(workOn(ID, 'audit')).toBe(other.work);
    expect(workOn(ID, 'nobody')).toBeUndefined();
    for (const { work } of [other, first]) work.end();
    expect(workOn(ID, 'audit')).toBeUndefined();
  });
});

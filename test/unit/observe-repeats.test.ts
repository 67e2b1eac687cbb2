import { EscrowError } from '@escrowmq/protocol';
import { afterEach, beforeEach, describe, expect, jest, test } from '@jest/globals';
import type { Observer } from '../../broker/src/domain/ports.js';
import type { Facts } from '../../broker/src/observe/log.js';
import { createMetrics } from '../../broker/src/observe/metrics.js';
import { createObserver } from '../../broker/src/observe/observer.js';
import { newId } from '../support/store-fixtures.js';

beforeEach(() => {
  jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask'] });
});
afterEach(() => {
  jest.useRealTimers();
});

type Line = [level: string, event: string, facts: Facts | undefined];

function observed() {
  const lines: Line[] = [];
  const metrics = createMetrics();
  const write = (level: string) => (event: string, facts?: Facts) => {
    lines.push([level, event, facts]);
  };
  const log = {
    error: write('error'),
    warn: write('warn'),
    info: write('info'),
    debug: write('debug'),
  };
  return { observer: createObserver(log, metrics), lines, metrics };
}

const away = () => new EscrowError('STORE_UNAVAILABLE', 'the store does not answer');

/** Five loops that fail twice a second. */
function outage(observer: Observer, seconds: number): void {
  for (let half = 0; half < 2 * seconds; half++) {
    for (const loop of ['forward', 'check', 'compensate', 'clock', `check ${newId()}`]) {
      observer.failed(loop, away());
    }
    jest.advanceTimersByTime(500);
  }
}

describe('X2: the log of an outage is bounded', () => {
  test('350 failures in 35 s are one line at once, and one when it is over', async () => {
    const { observer, lines, metrics } = observed();
    outage(observer, 35);
    const event = 'the store can not be used';
    expect(lines).toEqual([['warn', event, { detail: 'forward' }]]);
    observer.recovered('STORE_UNAVAILABLE');
    expect(lines.slice(1)).toEqual([['info', `over: ${event}`, { count: 350, tookMs: 35_000 }]]);
    jest.advanceTimersByTime(600_000);
    expect(lines).toHaveLength(2);
    const { body } = await metrics.scrape();
    expect(body).toContain('escrow_failures_total{reason="STORE_UNAVAILABLE"} 350');
  });

  test('a long one is told once a minute, with how often it happened since', () => {
    const { observer, lines } = observed();
    outage(observer, 600);
    const told = lines.map(([level, , facts]) => [level, facts?.count]);
    expect(told).toEqual([['warn', undefined], ...Array(10).fill(['warn', expect.any(Number)])]);
    const counts = lines.slice(1).map(([, , facts]) => Number(facts?.count));
    expect(counts.reduce((sum, count) => sum + count, 1)).toBe(6_000);
    expect(lines.at(-1)?.[2]?.tookMs).toBe(600_000);
  });

  test('what nobody says the end of is over when it has not happened for a minute', () => {
    const { observer, lines } = observed();
    observer.failed('a channel', new Error('gone'));
    jest.advanceTimersByTime(2_000);
    observer.failed('a channel', new Error('gone'));
    jest.advanceTimersByTime(58_000);
    jest.advanceTimersByTime(60_000);
    expect(lines).toEqual([
      ['warn', 'a channel', {}],
      ['warn', 'a channel', { count: 1, tookMs: 60_000 }],
      ['info', 'over: a channel', { count: 2, tookMs: 2_000 }],
    ]);
  });

  test('what happened once is one line', () => {
    const { observer, lines } = observed();
    observer.failed('a channel', new Error('gone'));
    jest.advanceTimersByTime(3_600_000);
    expect(lines).toHaveLength(1);
  });

  test('what comes and goes every two seconds is told once a minute as well', () => {
    const { observer, lines } = observed();
    for (let second = 0; second < 300; second++) {
      if (second % 2 === 0) observer.failed('forward', away());
      else observer.recovered('STORE_UNAVAILABLE');
      jest.advanceTimersByTime(1_000);
    }
    expect(lines.length).toBeLessThanOrEqual(12);
    jest.advanceTimersByTime(600_000);
    expect(lines.at(-1)?.[1]).toBe('over: the store can not be used');
  });

  test('another cause is told at once, whatever its ids and numbers', () => {
    const { observer, lines } = observed();
    for (let n = 0; n < 50; n++) {
      observer.failed(`check ${newId()}`, new Error(`no answer in ${n} ms`));
      observer.failed(`check ${newId()}`, new Error(`${newId()} is unknown`));
      observer.failed('forward', new EscrowError('STORE_UNAVAILABLE', 'the store is read-only'));
      observer.failed('forward', away());
    }
    expect(lines).toHaveLength(4);
  });

  test('ten thousand different causes write hundreds of lines, not ten thousand', () => {
    const { observer, lines } = observed();
    const letters = (n: number) =>
      String(n).replace(/\d/g, (digit) => 'abcdefghij'[Number(digit)]!);
    for (let n = 0; n < 10_000; n++) observer.failed(letters(n), new Error('gone'));
    expect(lines.length).toBeLessThanOrEqual(501);
  });

  test('a warning is told once for each thing that it is about', () => {
    const { observer, lines } = observed();
    for (let n = 0; n < 30; n++) {
      observer.warn('no queue is bound', { topic: 'orders' }, 'orders');
      observer.warn('no queue is bound', { topic: 'orders-2' }, 'orders-2');
    }
    expect(lines).toEqual([
      ['warn', 'no queue is bound', { topic: 'orders' }],
      ['warn', 'no queue is bound', { topic: 'orders-2' }],
    ]);
    jest.advanceTimersByTime(60_000);
    expect(lines.slice(2)).toEqual([
      ['warn', 'no queue is bound', { topic: 'orders', count: 29, tookMs: 60_000 }],
      ['warn', 'no queue is bound', { topic: 'orders-2', count: 29, tookMs: 60_000 }],
    ]);
  });
});

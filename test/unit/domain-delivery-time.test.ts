import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import {
  dueAtOf,
  mustWait,
  splitPending,
  untilFirstMs,
} from '../../broker/src/domain/delivery-time.js';
import { allMessages } from '../../broker/src/domain/transaction.js';
import { message } from '../support/store-fixtures.js';

const DECIDED = 1_000_000;

describe('when a message may leave', () => {
  test.each([
    ['a plain message, with its commit', {}, DECIDED],
    ['a delayed one, that long after its commit', { delayMs: 300 }, DECIDED + 300],
    ['one with a time of its own, then', { deliverAt: DECIDED + 5 }, DECIDED + 5],
    ['one whose time was over before the commit, at that time', { deliverAt: 7 }, 7],
    ['one whose time is the beginning of all time, then', { deliverAt: 0 }, 0],
  ])('%s', (_what, changes, dueAt) => {
    expect(dueAtOf(message(changes), DECIDED)).toBe(dueAt);
  });

  test('only what names a time may have to wait, even when that time is over', () => {
    expect(mustWait([message(), message()])).toBe(false);
    expect(mustWait([message(), message({ delayMs: 1 })])).toBe(true);
    expect(mustWait([message({ deliverAt: 0 })])).toBe(true);
  });

  test('a send waits for its first message only', () => {
    const [soon, late] = [message({ delayMs: 300 }), message({ deliverAt: DECIDED + 900 })];
    expect(untilFirstMs([late, soon], DECIDED)).toBe(300);
    expect(untilFirstMs([late], DECIDED)).toBe(900);
    expect(untilFirstMs([late, message()], DECIDED)).toBe(0);
    expect(untilFirstMs([late, message({ deliverAt: 1 })], DECIDED)).toBe(0);
  });
});

describe('what of the pending messages may go', () => {
  const messages = [
    message({ delayMs: 500 }),
    message(),
    message({ delayMs: 300 }),
    message({ deliverAt: DECIDED - 1 }),
  ];
  const at = (now: number, pending = 0b1111) =>
    splitPending({ messages, pending, decidedAt: DECIDED }, now);

  test('with the commit, what does not wait; the row is due with the first of the rest', () => {
    expect(at(DECIDED)).toEqual({
      ready: 0b1010,
      waiting: 0b0101,
      nextDueAt: DECIDED + 300,
      blocked: 0,
    });
  });

  test('not a millisecond early', () => {
    expect(at(DECIDED + 299)).toMatchObject({ waiting: 0b0101 });
    expect(at(DECIDED + 300)).toEqual({
      ready: 0b1110,
      waiting: 0b0001,
      nextDueAt: DECIDED + 500,
      blocked: 0,
    });
  });

  test('nothing waits once all are due', () => {
    expect(at(DECIDED + 500)).toEqual({
      ready: 0b1111,
      waiting: 0,
      nextDueAt: undefined,
      blocked: 0,
    });
  });

  test('what is not pending neither goes nor wakes anybody', () => {
    expect(at(DECIDED, 0b0011)).toEqual({
      ready: 0b0010,
      waiting: 0b0001,
      nextDueAt: DECIDED + 500,
      blocked: 0,
    });
    expect(at(DECIDED, 0)).toEqual({ ready: 0, waiting: 0, nextDueAt: undefined, blocked: 0 });
  });

  test('every pending message is in one of the two parts, up to the last bit', () => {
    const delays = fc.array(fc.option(fc.nat(10), { nil: undefined }), {
      minLength: 1,
      maxLength: 32,
    });
    fc.assert(
      fc.property(delays, fc.nat(12), (all, passed) => {
        const many = all.map((delayMs) => message(delayMs === undefined ? {} : { delayMs }));
        const pending = allMessages(many.length);
        const row = { messages: many, pending, decidedAt: DECIDED };
        const { ready, waiting, nextDueAt } = splitPending(row, DECIDED + passed);
        expect(ready + waiting).toBe(pending);
        const later = all.flatMap((delayMs) => ((delayMs ?? 0) > passed ? [delayMs ?? 0] : []));
        expect(nextDueAt).toBe(later.length === 0 ? undefined : DECIDED + Math.min(...later));
      }),
    );
  });
});

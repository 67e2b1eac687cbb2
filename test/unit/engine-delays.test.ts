import { describe, expect, test } from '@jest/globals';
import type { Committed } from '../../broker/src/domain/transaction.js';
import { committed, fakePublisher, NOW } from '../support/engine-fakes.js';
import {
  ATTEMPTS_MAX,
  forwarding,
  leaseEnd,
  returned,
  sentIds,
} from '../support/forwarder-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';
import { message } from '../support/store-fixtures.js';

/** The claim of the fake store happens at NOW. */
const later = (ms: number) => message({ delayMs: ms });

/** A row that recovery claims, committed a second ago. */
const claimed = (messages: Committed['messages'], changes = {}) =>
  committed({ messages, decidedAt: NOW - 1_000, ...changes });

async function recover(
  row: Committed,
  publisher = fakePublisher({ always: { kind: 'confirmed' } }),
) {
  const parts = forwarding({ rows: [row], publisher });
  await parts.forwarder.recoverOnce();
  await parts.forwarder.idle();
  return parts;
}

describe('messages that wait', () => {
  test('nothing may go: the row is due with the first of them, and nothing else changes', async () => {
    const row = claimed([later(1_500), later(1_001)]);
    const { publisher, saved, postponed } = await recover(row);
    expect(publisher.sent).toEqual([]);
    expect(saved).toEqual([]);
    expect(postponed).toEqual([{ id: row.id, dueAt: NOW + 1 }]);
  });

  test('what is due by the time of the claim goes, to the millisecond', async () => {
    const row = claimed([later(1_000), message({ deliverAt: NOW })]);
    const { publisher, saved } = await recover(row);
    expect(sentIds(publisher)).toEqual([`${row.id}-0`, `${row.id}-1`]);
    expect(saved).toMatchObject([{ done: 0b11, to: { state: 'forwarded' } }]);
  });

  test('what may go does not wait for the rest, and that is no attempt', async () => {
    const row = claimed([message(), later(5_000), later(3_000)], { attempts: 1 });
    const { publisher, saved, postponed } = await recover(row);
    expect(sentIds(publisher)).toEqual([`${row.id}-0`]);
    expect(saved).toEqual([
      {
        id: row.id,
        done: 0b001,
        unrouted: 0,
        to: { state: 'committed', pending: 0b110, attempts: 1, dueAt: NOW + 2_000 },
        onlyWaits: true,
        history: [],
      },
    ]);
    expect(postponed).toEqual([]);
  });

  test.each([
    ['its back-off', 90_000, NOW + 1_000],
    ['what waits', 1_500, NOW + 500],
  ])(
    'after a failure the row is due with the earlier of the two: %s',
    async (_, delayMs, dueAt) => {
      const row = claimed([message(), later(delayMs)]);
      const { saved } = await recover(row, fakePublisher({ always: returned }));
      expect(saved).toMatchObject([
        { done: 0, to: { state: 'committed', pending: 0b11, attempts: 1, dueAt } },
      ]);
      expect(saved[0]?.onlyWaits).toBeUndefined();
    },
  );

  test('while one still waits, an unroutable one is alerted and tried on, and not parked', async () => {
    const row = claimed([message(), later(90_000)], { attempts: ATTEMPTS_MAX - 1 });
    const { saved, observer } = await recover(row, fakePublisher({ always: returned }));
    expect(saved).toMatchObject([{ to: { state: 'committed', attempts: ATTEMPTS_MAX } }]);
    expect(observer.alerts.map(({ kind }) => kind)).toEqual(['forwardFailing']);
  });

  test('a delayed message tells when it was due; a plain one does not', async () => {
    const row = claimed([message(), later(600), message({ deliverAt: 17 })]);
    const { publisher } = await recover(row);
    expect(publisher.sent.map(({ headers }) => headers['escrow-due-at'])).toEqual([
      undefined,
      NOW - 400,
      17,
    ]);
  });

  test('right after its commit a row goes by the time of that, however late it is read', async () => {
    const row = claimed([message(), later(1), message({ deliverAt: NOW - 1_000 })]);
    const { forwarder, publisher, saved } = forwarding({ rows: [row] });
    forwarder.forwardMoved([row.id], leaseEnd());
    await forwarder.idle();
    expect(sentIds(publisher)).toEqual([`${row.id}-0`, `${row.id}-2`]);
    expect(saved).toMatchObject([{ onlyWaits: true, to: { dueAt: NOW - 999 } }]);
  });

  test('postponing needs neither room nor what is left of the lease', async () => {
    const row = claimed([later(90_000)]);
    const { forwarder, postponed, released } = forwarding({
      rows: [row],
      publisher: fakePublisher({ room: 0 }),
    });
    forwarder.forwardMoved([row.id], leaseEnd(0));
    await forwarder.idle();
    expect(postponed).toEqual([{ id: row.id, dueAt: NOW + 89_000 }]);
    expect(released).toEqual([]);
  });

  test('a postponement that fails is reported; the lease brings the row back', async () => {
    const error = new Error('the store is away');
    const { forwarder, observer } = forwarding({
      rows: [claimed([later(90_000)])],
      store: { postponeForwards: () => Promise.reject(error) },
    });
    await forwarder.recoverOnce();
    await forwarder.idle();
    expect(observer.failures).toEqual([['postpone a committed transaction', error]]);
  });

  test('idle waits for a postponement', async () => {
    const written = deferred();
    const { forwarder } = forwarding({
      rows: [claimed([later(90_000)])],
      store: { postponeForwards: () => written.promise },
    });
    await forwarder.recoverOnce();
    let idle = false;
    const waiting = forwarder.idle().then(() => {
      idle = true;
    });
    await whatIsReady();
    expect(idle).toBe(false);
    written.resolve();
    await waiting;
  });
});

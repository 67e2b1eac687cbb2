import { describe, expect, test } from '@jest/globals';
import type { PublishOutcome } from '../../broker/src/domain/ports.js';
import type { Committed } from '../../broker/src/domain/transaction.js';
import { committed, fakePublisher, NOW } from '../support/engine-fakes.js';
import { ATTEMPTS_MAX, forwarding, leaseEnd, returned } from '../support/forwarder-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';
import { messages } from '../support/store-fixtures.js';

describe('what can not be forwarded', () => {
  async function roundOf(attempts: number, always: PublishOutcome) {
    const row = committed({ attempts });
    const parts = forwarding({ rows: [row], publisher: fakePublisher({ always }) });
    await parts.forwarder.recoverOnce();
    await parts.forwarder.idle();
    const [saved] = parts.saved;
    if (saved === undefined) throw new Error('the round was not recorded');
    return { ...parts, row, saved };
  }

  test('an unroutable message is tried again, and each time is in the history (F53)', async () => {
    const { saved, observer } = await roundOf(0, returned);
    expect(saved.to).toMatchObject({ state: 'committed', attempts: 1 });
    expect(saved.history).toEqual([
      { at: NOW, event: 'forwardFailed', detail: { failure: 'message 0: 312 NO_ROUTE' } },
    ]);
    expect(observer.alerts).toEqual([]);
  });

  test.each([returned, { kind: 'refused', detail: 'no such exchange' } as const])(
    'what stays $kind is parked after its last attempt, with an alert',
    async (outcome) => {
      const { saved, row, observer } = await roundOf(ATTEMPTS_MAX - 1, outcome);
      const failure = `message 0: ${outcome.detail}`;
      expect(saved.to).toEqual({
        state: 'parked',
        reason: 'undeliverable',
        pending: 1,
        parkedAt: NOW,
      });
      expect(saved.history).toEqual([
        {
          at: NOW,
          event: 'parked',
          detail: { reason: 'undeliverable', failure, attempts: ATTEMPTS_MAX },
        },
      ]);
      expect(observer.alerts).toEqual([
        { kind: 'parked', transactionId: row.id, producerGroup: 'accounts', detail: failure },
      ]);
    },
  );

  test.each(['nacked', 'unconfirmed'] as const)(
    'what is %s is alerted once, and tried for ever',
    async (kind) => {
      const outcome = { kind, detail: 'no' };
      const alertsAfter = async (attempts: number) => {
        const { saved, observer } = await roundOf(attempts, outcome);
        expect(saved.to.state).toBe('committed');
        return observer.alerts.map((alert) => alert.kind);
      };
      expect(await alertsAfter(ATTEMPTS_MAX - 2)).toEqual([]);
      expect(await alertsAfter(ATTEMPTS_MAX - 1)).toEqual(['forwardFailing']);
      expect(await alertsAfter(ATTEMPTS_MAX)).toEqual([]);
    },
  );

  test('of several failures the one that may never end decides', async () => {
    const publisher = fakePublisher();
    const row = committed({ messages: messages(3), attempts: ATTEMPTS_MAX - 1 });
    const { forwarder, saved } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    publisher.answer(row.id, 0, { kind: 'unconfirmed', detail: 'closed' });
    publisher.answer(row.id, 1, returned);
    publisher.answer(row.id, 2, { kind: 'nacked', detail: 'full' });
    await forwarder.idle();
    expect(saved).toMatchObject([
      { to: { state: 'parked', pending: 0b111 }, lastFailure: 'message 1: 312 NO_ROUTE' },
    ]);
  });

  test('a failure of many words is cut', async () => {
    const { saved } = await roundOf(0, { kind: 'nacked', detail: 'a'.repeat(2_000) });
    expect(saved.lastFailure).toHaveLength(500);
  });
});

describe('recovery', () => {
  test('it claims only what the window takes now, and nothing without room', async () => {
    const publisher = fakePublisher({ room: 7, always: { kind: 'confirmed' } });
    const { forwarder, claims } = forwarding({ publisher });
    expect(await forwarder.recoverOnce()).toBe(0);
    publisher.room = 100_000;
    await forwarder.recoverOnce();
    publisher.room = 0;
    expect(await forwarder.recoverOnce()).toBe(0);
    expect(claims).toEqual([
      { limit: 7, leaseMs: 30_000 },
      { limit: 500, leaseMs: 30_000 },
    ]);
  });

  test('it tells how many it took, so that the loop knows whether to go on', async () => {
    const { forwarder, saved } = forwarding({ rows: [committed(), committed()] });
    expect(await forwarder.recoverOnce()).toBe(2);
    await forwarder.idle();
    expect(saved).toHaveLength(2);
  });

  test('a claim that fails is the loop’s to report', async () => {
    const { forwarder } = forwarding({
      store: { claimDueForwards: () => Promise.reject(new Error('the store is away')) },
    });
    await expect(forwarder.recoverOnce()).rejects.toThrow('the store is away');
  });

  test('it waits until the window takes a whole transaction', async () => {
    const publisher = fakePublisher({ room: 2 });
    const rows = [committed({ messages: messages(2) }), committed({ messages: messages(2) })];
    const { forwarder, saved, released } = forwarding({ rows, publisher });
    const pass = forwarder.recoverOnce();
    await whatIsReady();
    expect(publisher.sent).toHaveLength(2);
    publisher.answer(rows[0]!.id, 0);
    publisher.answer(rows[0]!.id, 1);
    await pass;
    expect(publisher.sent).toHaveLength(4);
    publisher.answer(rows[1]!.id, 0);
    publisher.answer(rows[1]!.id, 1);
    await forwarder.idle();
    expect(saved).toHaveLength(2);
    expect(released).toEqual([]);
  });

  test('a connection that ends meanwhile lets go of what was claimed', async () => {
    const publisher = fakePublisher({ room: 2 });
    const rows = [committed({ messages: messages(2) }), committed({ messages: messages(2) })];
    const { forwarder, released } = forwarding({ rows, publisher });
    const pass = forwarder.recoverOnce();
    await whatIsReady();
    publisher.room = -2;
    publisher.answer(rows[0]!.id, 0, { kind: 'unconfirmed', detail: 'closed' });
    publisher.answer(rows[0]!.id, 1, { kind: 'unconfirmed', detail: 'closed' });
    await pass;
    await forwarder.idle();
    expect(released).toEqual([rows[1]!.id]);
  });
});

describe('one message id is never in flight twice', () => {
  test('recovery passes over what is in hand', async () => {
    const publisher = fakePublisher();
    const row = committed();
    const { forwarder, saved } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    await forwarder.recoverOnce();
    await whatIsReady();
    expect(publisher.sent).toHaveLength(1);
    publisher.answer(row.id, 0);
    await forwarder.idle();
    expect(saved).toHaveLength(1);
  });

  test('recovery does not wait for room for it either, to send it once more afterwards', async () => {
    const publisher = fakePublisher({ room: 3 });
    const row = committed({ messages: messages(2) });
    const { forwarder } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    const pass = forwarder.recoverOnce();
    await whatIsReady();
    publisher.answer(row.id, 0);
    publisher.answer(row.id, 1);
    await pass;
    await whatIsReady();
    expect(publisher.sent).toHaveLength(2);
    await forwarder.idle();
  });

  test('it stays in hand until its result is recorded, not only until the confirm', async () => {
    const row = committed();
    const recorded = deferred();
    const { forwarder, publisher } = forwarding({
      rows: [row],
      store: { saveForwards: () => recorded.promise.then(() => ({ woken: [] })) },
    });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    await forwarder.recoverOnce();
    expect(publisher.sent).toHaveLength(1);
    recorded.resolve();
    await forwarder.idle();
    await forwarder.recoverOnce();
    await forwarder.idle();
    expect(publisher.sent).toHaveLength(2);
  });

  test('a read that comes late neither sends nor releases what recovery has in hand', async () => {
    const publisher = fakePublisher();
    const row = committed();
    const read = deferred<Committed[]>();
    const { forwarder, released } = forwarding({
      rows: [row],
      publisher,
      store: { readCommitted: () => read.promise },
    });
    forwarder.forwardMoved([row.id], leaseEnd(0));
    await forwarder.recoverOnce();
    read.resolve([row]);
    await whatIsReady();
    expect(publisher.sent).toHaveLength(1);
    expect(released).toEqual([]);
    publisher.answer(row.id, 0);
    await forwarder.idle();
  });
});

import { describe, expect, test } from '@jest/globals';
import type { ForwardingToSave, PublishOutcome } from '../../broker/src/domain/ports.js';
import type { Committed } from '../../broker/src/domain/transaction.js';
import { createForwarder, type ForwarderDeps } from '../../broker/src/engine/forwarder.js';
import { createHeldTransactions } from '../../broker/src/engine/held-transactions.js';
import {
  clockAt,
  committed,
  currentId,
  fakePublisher,
  NOW,
  recordingObserver,
} from '../support/engine-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';
import { message, messages, newTransaction } from '../support/store-fixtures.js';

const ATTEMPTS_MAX = 3;
/** A confirm may take ten seconds; nothing begins less than twelve before the end of its lease. */
const MARGIN_MS = 12_000;

const leaseEnd = (inMs = 30_000) => performance.now() + inMs;
const returned: PublishOutcome = { kind: 'returned', detail: '312 NO_ROUTE' };

/** A forwarder between a RabbitMQ and a store that keep a record. */
function forwarding(
  options: {
    rows?: Committed[];
    publisher?: ReturnType<typeof fakePublisher>;
    store?: Partial<ForwarderDeps['store']>;
  } = {},
) {
  const rows = options.rows ?? [];
  const publisher = options.publisher ?? fakePublisher({ always: { kind: 'confirmed' } });
  const saved: ForwardingToSave[] = [];
  const released: string[] = [];
  const reads: string[][] = [];
  const claims: { limit: number; leaseMs: number }[] = [];
  const observer = recordingObserver();
  const held = createHeldTransactions(1_000_000);
  const forwarder = createForwarder({
    store: {
      async claimDueForwards({ limit, leaseMs }) {
        claims.push({ limit, leaseMs });
        return { now: NOW, due: rows.slice(0, limit) };
      },
      async readCommitted(ids) {
        reads.push([...ids]);
        return rows.filter(({ id }) => ids.includes(id));
      },
      async saveForwards(batch) {
        saved.push(...batch);
      },
      async releaseForwards(ids) {
        released.push(...ids);
      },
      ...options.store,
    },
    publisher,
    held,
    clock: clockAt(),
    policy: { undeliverableAttemptsMax: ATTEMPTS_MAX },
    observer,
  });
  return { forwarder, publisher, saved, released, reads, claims, observer, held };
}

const sentIds = (publisher: ReturnType<typeof fakePublisher>) =>
  publisher.sent.map(({ messageId }) => messageId);

describe('what this instance moved', () => {
  test('it is forwarded from memory, without reading the store', async () => {
    const { forwarder, publisher, saved, reads, held } = forwarding();
    const transaction = newTransaction({ id: currentId(), messages: messages(2) });
    held.put(transaction);
    forwarder.forwardMoved([transaction.id], leaseEnd());
    await forwarder.idle();
    expect(sentIds(publisher)).toEqual([`${transaction.id}-0`, `${transaction.id}-1`]);
    expect(saved).toEqual([
      {
        id: transaction.id,
        done: 0b11,
        unrouted: 0,
        to: { state: 'forwarded', forwardedAt: NOW },
        history: [],
      },
    ]);
    expect(reads).toEqual([]);
    expect(held.take(transaction.id)).toBeUndefined();
  });

  test('what is not in memory is read in one batch', async () => {
    const rows = [committed(), committed()];
    const { forwarder, saved, reads } = forwarding({ rows });
    const ids = rows.map(({ id }) => id);
    forwarder.forwardMoved(ids, leaseEnd());
    await forwarder.idle();
    expect(reads).toEqual([ids]);
    expect(saved.map(({ id }) => id)).toEqual(ids);
  });

  test('a read that fails is reported, and the lease brings it back', async () => {
    const error = new Error('the store is away');
    const { forwarder, publisher, observer } = forwarding({
      store: { readCommitted: () => Promise.reject(error) },
    });
    forwarder.forwardMoved([currentId()], leaseEnd());
    await forwarder.idle();
    expect(observer.failures).toEqual([['read committed transactions', error]]);
    expect(publisher.sent).toEqual([]);
  });

  test('idle waits for a read that is under way, and for what it finds', async () => {
    const row = committed();
    const read = deferred<Committed[]>();
    const { forwarder, saved } = forwarding({ store: { readCommitted: () => read.promise } });
    forwarder.forwardMoved([row.id], leaseEnd());
    let idle = false;
    const waiting = forwarder.idle().then(() => {
      idle = true;
    });
    await whatIsReady();
    expect(idle).toBe(false);
    read.resolve([row]);
    await waiting;
    expect(saved.map(({ id }) => id)).toEqual([row.id]);
  });

  test('only what is pending is published', async () => {
    const row = committed({ messages: messages(3), pending: 0b101 });
    const { forwarder, publisher } = forwarding({ rows: [row] });
    forwarder.forwardMoved([row.id], leaseEnd());
    await forwarder.idle();
    expect(sentIds(publisher)).toEqual([`${row.id}-0`, `${row.id}-2`]);
  });

  test('so close to the end of its lease that a confirm might come after it, it is let go', async () => {
    const { forwarder, publisher, released, held } = forwarding();
    const [late, early] = [newTransaction(), newTransaction()];
    held.put(late);
    held.put(early);
    forwarder.forwardMoved([late.id], leaseEnd(MARGIN_MS - 1_000));
    forwarder.forwardMoved([early.id], leaseEnd(MARGIN_MS + 60_000));
    await forwarder.idle();
    expect(released).toEqual([late.id]);
    expect(sentIds(publisher)).toEqual([`${early.id}-0`]);
  });

  test('what the window does not take now is let go, whole', async () => {
    const publisher = fakePublisher({ room: 3 });
    const { forwarder, released, held } = forwarding({ publisher });
    const [fits, tooMany] = [
      newTransaction({ messages: messages(2) }),
      newTransaction({ messages: messages(2) }),
    ];
    held.put(fits);
    held.put(tooMany);
    forwarder.forwardMoved([fits.id, tooMany.id], leaseEnd());
    await whatIsReady();
    expect(sentIds(publisher)).toEqual([`${fits.id}-0`, `${fits.id}-1`]);
    expect(released).toEqual([tooMany.id]);
    publisher.answer(fits.id, 0);
    publisher.answer(fits.id, 1);
    await forwarder.idle();
  });

  test('a release that fails is reported; the lease ends it later', async () => {
    const error = new Error('the store is away');
    const { forwarder, observer, held } = forwarding({
      publisher: fakePublisher({ room: 0 }),
      store: { releaseForwards: () => Promise.reject(error) },
    });
    const transaction = newTransaction();
    held.put(transaction);
    forwarder.forwardMoved([transaction.id], leaseEnd());
    await forwarder.idle();
    expect(observer.failures).toEqual([['release a committed transaction', error]]);
  });

  test('rows are leased only while RabbitMQ takes messages', () => {
    const publisher = fakePublisher();
    const { forwarder } = forwarding({ publisher });
    expect(forwarder.leaseMs()).toBe(30_000);
    publisher.room = 0;
    expect(forwarder.leaseMs()).toBe(0);
  });
});

describe('marking', () => {
  test('a transaction is marked after every confirm, never before', async () => {
    const publisher = fakePublisher();
    const row = committed({ messages: messages(2) });
    const { forwarder, saved } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    expect(publisher.sent).toHaveLength(2);
    expect(saved).toEqual([]);
    publisher.answer(row.id, 1);
    await whatIsReady();
    expect(saved).toEqual([]);
    publisher.answer(row.id, 0);
    await forwarder.idle();
    expect(saved).toMatchObject([{ done: 0b11, to: { state: 'forwarded' } }]);
  });

  test('a partial result keeps what failed, and only that', async () => {
    const publisher = fakePublisher();
    const row = committed({ messages: messages(3) });
    const { forwarder, saved, observer } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    publisher.answer(row.id, 0);
    publisher.answer(row.id, 1, { kind: 'nacked', detail: 'the queue is full' });
    publisher.answer(row.id, 2);
    await forwarder.idle();
    expect(saved).toEqual([
      {
        id: row.id,
        done: 0b101,
        unrouted: 0,
        to: { state: 'committed', pending: 0b010, attempts: 1, dueAt: NOW + 1_000 },
        lastFailure: 'message 1: the queue is full',
        history: [],
      },
    ]);
    expect(observer.alerts).toEqual([]);
    expect(observer.counts.map(([, labels]) => labels.outcome)).toEqual([
      'confirmed',
      'nacked',
      'confirmed',
    ]);
  });

  test('an unroutable message that may be dropped is done, and recorded as unrouted', async () => {
    const publisher = fakePublisher();
    const row = committed({ messages: [message(), message({ ifUnrouted: 'drop' })] });
    const { forwarder, saved } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await whatIsReady();
    publisher.answer(row.id, 0);
    publisher.answer(row.id, 1, returned);
    await forwarder.idle();
    expect(saved).toEqual([
      {
        id: row.id,
        done: 0b11,
        unrouted: 0b10,
        to: { state: 'forwarded', forwardedAt: NOW },
        history: [{ at: NOW, event: 'unrouted', detail: { messages: [1] } }],
      },
    ]);
  });

  test('drop speaks of missing queues only: a nack keeps the message', async () => {
    const always = { kind: 'nacked', detail: 'no' } as const;
    const row = committed({ messages: [message({ ifUnrouted: 'drop' })] });
    const { forwarder, saved } = forwarding({ rows: [row], publisher: fakePublisher({ always }) });
    forwarder.forwardMoved([row.id], leaseEnd());
    await forwarder.idle();
    expect(saved).toMatchObject([{ done: 0, unrouted: 0, to: { state: 'committed', pending: 1 } }]);
  });

  test('a failed save is reported, and recovery sends the messages again', async () => {
    const row = committed();
    const error = new Error('the store is away');
    let away = true;
    const saved: string[] = [];
    const { forwarder, publisher, observer } = forwarding({
      rows: [row],
      store: {
        async saveForwards(batch) {
          if (away) throw error;
          saved.push(...batch.map(({ id }) => id));
        },
      },
    });
    forwarder.forwardMoved([row.id], leaseEnd());
    await forwarder.idle();
    expect(observer.failures).toEqual([['record forwarded messages', error]]);
    away = false;
    await forwarder.recoverOnce();
    await forwarder.idle();
    expect(sentIds(publisher)).toEqual([`${row.id}-0`, `${row.id}-0`]);
    expect(saved).toEqual([row.id]);
  });

  test('32 messages are one full mask', async () => {
    const row = committed({ messages: messages(32) });
    const { forwarder, saved } = forwarding({ rows: [row] });
    forwarder.forwardMoved([row.id], leaseEnd());
    await forwarder.idle();
    expect(saved).toMatchObject([{ done: 2 ** 32 - 1, to: { state: 'forwarded' } }]);
  });
});

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

  test('an unroutable message is tried again, and each time is in the history', async () => {
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
      { limit: 200, leaseMs: 30_000 },
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

  test('it stays in hand until its result is recorded, not only until the confirm', async () => {
    const row = committed();
    const recorded = deferred();
    const { forwarder, publisher } = forwarding({
      rows: [row],
      store: { saveForwards: () => recorded.promise },
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

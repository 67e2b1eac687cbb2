import { describe, expect, test } from '@jest/globals';
import type { Committed } from '../../broker/src/domain/transaction.js';
import { committed, currentId, fakePublisher, NOW } from '../support/engine-fakes.js';
import { forwarding, leaseEnd, returned, sentIds } from '../support/forwarder-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';
import { message, messages, newTransaction } from '../support/store-fixtures.js';

/** A confirm may take ten seconds; nothing begins less than twelve before the end of its lease. */
const MARGIN_MS = 12_000;

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

  test('so close to the end of its lease that a confirm might come after it, it is let go (F41)', async () => {
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

  test('what cannot be made into a message is reported, and takes none of its batch along (F49)', async () => {
    const { forwarder, publisher, observer, held } = forwarding();
    const broken = { ...newTransaction(), messages: [message({ data: 1n })] };
    const whole = newTransaction();
    held.put(broken);
    held.put(whole);
    forwarder.forwardMoved([broken.id, whole.id], leaseEnd());
    await forwarder.idle();
    expect(sentIds(publisher)).toEqual([`${whole.id}-0`]);
    expect(observer.failures).toEqual([['publish a committed transaction', expect.any(TypeError)]]);
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

test('while the window is full, recovery waits for a confirm and not for its next turn', async () => {
  const publisher = fakePublisher({ room: 1 });
  const [first, second] = [newTransaction(), committed()];
  const rows: Committed[] = [];
  const { forwarder, held } = forwarding({ publisher, rows });
  held.put(first);
  forwarder.forwardMoved([first.id], leaseEnd());
  await whatIsReady();
  expect(publisher.room).toBe(0);
  rows.push(second);
  const recovered = forwarder.recoverOnce();
  await whatIsReady();
  expect(sentIds(publisher)).toEqual([`${first.id}-0`]);
  publisher.answer(first.id, 0);
  await recovered;
  expect(sentIds(publisher)).toEqual([`${first.id}-0`, `${second.id}-0`]);
  publisher.answer(second.id, 0);
  await forwarder.idle();
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

  test('U06: what another message interrupted is saved as no attempt, and raises no alert', async () => {
    const always = { kind: 'interrupted', detail: 'another was refused' } as const;
    const row = committed({ messages: messages(1), attempts: 19 });
    const publisher = fakePublisher({ always });
    const { forwarder, saved, observer } = forwarding({ rows: [row], publisher });
    forwarder.forwardMoved([row.id], leaseEnd());
    await forwarder.idle();
    expect(saved).toMatchObject([
      { done: 0, onlyWaits: true, to: { state: 'committed', attempts: 19, dueAt: NOW + 500 } },
    ]);
    expect(observer.alerts).toEqual([]);
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

  test('a failed save is reported, and recovery sends the messages again (F51)', async () => {
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
          return { woken: [] };
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

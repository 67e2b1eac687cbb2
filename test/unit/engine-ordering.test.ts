import { HEADERS, orderingSlotOf } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import { keyIdOf, type Place } from '../../broker/src/domain/ordering.js';
import type { Committed } from '../../broker/src/domain/transaction.js';
import { committed, NOW } from '../support/engine-fakes.js';
import { forwarding, leaseEnd, sentIds } from '../support/forwarder-fakes.js';
import { message } from '../support/store-fixtures.js';

const keyId = keyIdOf('user', 'a');
const place = (number: number, sequence: number, isHead: boolean): Place => ({
  number,
  keyId,
  sequence,
  isHead,
});
const ordered = (changes: Partial<Committed> = {}) =>
  committed({ messages: [message({ orderingKey: 'a' })], ...changes });

test('the head of a key is published with its key, number and slot', async () => {
  const row = ordered({ places: [place(0, 7, true)] });
  const { forwarder, publisher, saved } = forwarding({ rows: [row] });
  await forwarder.recoverOnce();
  await forwarder.idle();
  expect(publisher.sent[0]?.headers).toMatchObject({
    [HEADERS.orderingKey]: 'a',
    [HEADERS.sequence]: 7,
    [HEADERS.orderingSlot]: orderingSlotOf('user', 'a'),
  });
  expect(saved).toMatchObject([{ done: 1, places: row.places }]);
});

test('what must let others go first keeps its lease: nothing is written that could undo a wake-up', async () => {
  const row = ordered({ places: [place(0, 2, false)] });
  const { forwarder, publisher, saved, postponed, released } = forwarding({ rows: [row] });
  forwarder.forwardMoved([row.id], leaseEnd());
  await forwarder.idle();
  expect([publisher.sent, saved, postponed, released]).toEqual([[], [], [], []]);
});

test('with something that waits for a time beside it, a claim is to say when it is due', async () => {
  const messages = [message({ orderingKey: 'a' }), message({ deliverAt: NOW + 60_000 })];
  const row = ordered({ messages, pending: 0b11, places: [place(0, 2, false)] });
  const { forwarder, postponed, released } = forwarding({ rows: [row] });
  forwarder.forwardMoved([row.id], leaseEnd());
  await forwarder.idle();
  expect([postponed, released]).toEqual([[], [row.id]]);
});

test('a message without a place was confirmed by somebody else, and is not published', async () => {
  const row = ordered({ places: [] });
  const { forwarder, publisher } = forwarding({ rows: [row] });
  forwarder.forwardMoved([row.id], leaseEnd());
  await forwarder.idle();
  expect(publisher.sent).toEqual([]);
});

test('what a save lets go on is leased to this instance, and forwarded at once', async () => {
  const first = ordered({ places: [place(0, 1, true)] });
  const next = ordered({ places: [place(0, 2, true)] });
  const leases: (number | undefined)[] = [];
  const woken = [[next.id], []];
  const { forwarder, publisher } = forwarding({
    rows: [first, next],
    store: {
      async saveForwards(_batch, leaseMs) {
        leases.push(leaseMs);
        return { woken: woken.shift() ?? [] };
      },
    },
  });
  forwarder.forwardMoved([first.id], leaseEnd());
  await forwarder.idle();
  expect(sentIds(publisher)).toEqual([`${first.id}-0`, `${next.id}-0`]);
  expect(leases).toEqual([30_000, 30_000]);
});

test('after its stop it goes on with no key, however long the line is', async () => {
  const rows = [1, 2].map((sequence) => ordered({ places: [place(0, sequence, true)] }));
  const leases: (number | undefined)[] = [];
  const { forwarder, publisher } = forwarding({
    rows,
    store: {
      async saveForwards(_batch, leaseMs) {
        leases.push(leaseMs);
        return { woken: rows.slice(1).map(({ id }) => id) };
      },
    },
  });
  forwarder.forwardMoved(
    rows.slice(0, 1).map(({ id }) => id),
    leaseEnd(),
  );
  forwarder.stop();
  await forwarder.idle();
  expect(publisher.sent).toHaveLength(1);
  expect(leases).toEqual([0]);
});

test('what is left of a round is no attempt while it only waits for others of its key', async () => {
  const messages = [message({ orderingKey: 'a' }), message({ orderingKey: 'a' })];
  const places = [place(0, 1, true), place(1, 2, false)];
  const row = ordered({ messages, pending: 0b11, places });
  const { forwarder, publisher, saved } = forwarding({ rows: [row] });
  await forwarder.recoverOnce();
  await forwarder.idle();
  expect(sentIds(publisher)).toEqual([`${row.id}-0`]);
  expect(saved).toMatchObject([
    { done: 0b01, onlyWaits: true, to: { state: 'committed', pending: 0b10, attempts: 0 } },
  ]);
});

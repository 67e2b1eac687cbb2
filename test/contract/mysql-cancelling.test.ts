import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { createStore } from '../../broker/src/store/store.js';
import { pausedAfter } from '../support/paused-database.js';
import { freshMysqlDatabase } from '../support/servers.js';
import { message, type OpenStore, openMysqlForTest, prepare } from '../support/store-fixtures.js';
import { until } from '../support/until.js';

const FORWARDS = { limit: 100, bytesMax: 1_000_000, leaseMs: 60_000 };
const DELAY_MS = 400;

let here: OpenStore;
let there: OpenStore;

beforeEach(async () => {
  const url = await freshMysqlDatabase();
  here = await openMysqlForTest(url);
  there = await openMysqlForTest(url);
});
afterEach(async () => {
  await here.store.close();
  await there.store.close();
});

const LOCKED = /for update$/;
const LOCKED_BY_CLAIM = /skip locked$/;
const TIME_READ = /^select .* as now$/;
const TAKEN_BACK = /cancelled = cancelled/;

describe('one instance cancels while another forwards', () => {
  const cancel = { by: 'producer', reason: 'paid in time' };
  const isDue = (dueAt: number) =>
    until('its time has come', async () => (await there.store.now()) >= dueAt);
  async function waiting() {
    const kind = { op: 'send', leaseMs: DELAY_MS, waits: true } as const;
    const id = await prepare(here.store, { messages: [message({ delayMs: DELAY_MS })], kind });
    const [row] = await here.store.readCommitted([id]);
    return { id, dueAt: (row?.decidedAt ?? 0) + DELAY_MS };
  }

  // Each begins before the time of the message, and is held up until it is over.
  test.each([
    ['has locked the row', LOCKED],
    ['has read the time', TIME_READ],
  ])('a cancelling that %s when the message comes due is refused', async (_, after) => {
    const { id, dueAt } = await waiting();
    const { paused, reached, go } = pausedAfter(here.database, after);
    const cancelling = createStore(paused, 'test').cancel({ id, ...cancel });
    await reached;
    await isDue(dueAt);
    // Passed over, because it is locked; not taken while its fate is open.
    expect((await there.store.claimDueForwards(FORWARDS)).due).toEqual([]);
    go();
    expect(await cancelling).toMatchObject({
      kind: 'refused',
      refusal: { messages: [{ number: 0, why: 'due' }] },
    });
    const { due } = await there.store.claimDueForwards(FORWARDS);
    expect(due).toMatchObject([{ id, pending: 1 }]);
  });

  test('a cancelling that has changed the row in time holds, however late it ends', async () => {
    const { id, dueAt } = await waiting();
    const { paused, reached, go } = pausedAfter(here.database, TAKEN_BACK);
    const cancelling = createStore(paused, 'test').cancel({ id, ...cancel });
    await reached;
    await isDue(dueAt);
    expect((await there.store.claimDueForwards(FORWARDS)).due).toEqual([]);
    go();
    expect(await cancelling).toMatchObject({ kind: 'cancelled', state: 'forwarded' });
    expect((await there.store.claimDueForwards(FORWARDS)).due).toEqual([]);
  });

  test('a claim that took the row first is waited for, and what it found due is refused', async () => {
    const { id, dueAt } = await waiting();
    const { paused, reached, go } = pausedAfter(there.database, LOCKED_BY_CLAIM);
    await isDue(dueAt);
    const claim = createStore(paused, 'test').claimDueForwards(FORWARDS);
    await reached;
    const cancelling = here.store.cancel({ id, ...cancel });
    go();
    expect((await claim).due).toMatchObject([{ id, pending: 1 }]);
    expect(await cancelling).toMatchObject({ kind: 'refused' });
  });
});

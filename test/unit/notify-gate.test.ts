import { afterEach, beforeEach, expect, jest, test } from '@jest/globals';
import {
  BREAKER_LIMITS,
  beginCall,
  CLOSED,
  callFailed,
  shutUntil,
} from '../../broker/src/callback/breaker.js';
import { createGate, type Entry, WAIT_MS_MAX } from '../../broker/src/notify/gate.js';

beforeEach(() => {
  jest.useFakeTimers();
});
afterEach(() => {
  jest.useRealTimers();
});

const { failuresMax, openMs } = BREAKER_LIMITS;

function gate() {
  const made = createGate({
    breaker: {
      closed: CLOSED,
      shutUntil,
      begin: beginCall,
      failed: (breaker, call) => callFailed(breaker, call, BREAKER_LIMITS),
    },
    now: () => performance.now(),
  });
  const enter = (impatient = false, signal = new AbortController().signal) =>
    made.enter({ impatient, signal });
  /** One that may call at once. */
  async function go(): Promise<{ probe: boolean }> {
    const entry = await enter();
    if (entry.kind !== 'go') throw new Error('the gate is shut');
    return entry;
  }
  async function breakIt(): Promise<void> {
    for (let call = 1; call <= failuresMax; call += 1) {
      made.done({ ...(await go()), failure: 'HTTP 500' });
    }
  }
  return { ...made, enter, go, breakIt };
}

/** What has become of a promise by now. */
function watch(entry: Promise<Entry>): { entry?: Entry } {
  const seen: { entry?: Entry } = {};
  void entry.then((value) => {
    seen.entry = value;
  });
  return seen;
}

test('calls go at once, any number of them, as long as some get through', async () => {
  const { go, done } = gate();
  const calls = await Promise.all([go(), go(), go()]);
  expect(calls.map(({ probe }) => probe)).toEqual([false, false, false]);
  for (let call = 1; call < failuresMax; call += 1)
    expect(done({ probe: false, failure: 'x' })).toBe(undefined);
  expect(done({ probe: false })).toBe(undefined);
  expect(done({ probe: false, failure: 'x' })).toBe(undefined);
  await go();
});

test('after failures in a row deliveries wait, and then one of them tries', async () => {
  const { enter, breakIt, done } = gate();
  await breakIt();
  const [first, second] = [watch(enter()), watch(enter())];
  await jest.advanceTimersByTimeAsync(openMs - 1);
  expect([first.entry, second.entry]).toEqual([undefined, undefined]);
  await jest.advanceTimersByTimeAsync(1);
  expect(first.entry).toEqual({ kind: 'go', probe: true });
  expect(second.entry).toBeUndefined();
  expect(done({ probe: true })).toBe('closed');
  await jest.advanceTimersByTimeAsync(0);
  expect(second.entry).toEqual({ kind: 'go', probe: false });
});

test('the failure that opens it is told once', async () => {
  const { go, done } = gate();
  const [late, later] = [await go(), await go()];
  for (let call = 1; call < failuresMax; call += 1) done({ ...(await go()), failure: 'x' });
  expect(done({ ...late, failure: 'x' })).toBe('opened');
  expect(done({ ...later, failure: 'x' })).toBeUndefined();
});

test('a probe that fails shuts it for longer, and the next delivery waits again', async () => {
  const { enter, breakIt, done } = gate();
  await breakIt();
  const [first, second] = [watch(enter()), watch(enter())];
  await jest.advanceTimersByTimeAsync(openMs);
  expect(first.entry).toMatchObject({ kind: 'go' });
  done({ probe: true, failure: 'HTTP 502' });
  await jest.advanceTimersByTimeAsync(2 * openMs - 1);
  expect(second.entry).toBeUndefined();
  await jest.advanceTimersByTimeAsync(1);
  expect(second.entry).toEqual({ kind: 'go', probe: true });
});

test('who is impatient does not wait for an endpoint that fails, and hears why', async () => {
  const { enter, breakIt } = gate();
  await breakIt();
  expect(await enter(true)).toEqual({
    kind: 'shut',
    forMs: openMs,
    failing: true,
    detail: 'no call was made after HTTP 500',
  });
});

test('an endpoint that asks for patience gets it from all, also from the impatient', async () => {
  const { enter, go, done } = gate();
  done({ ...(await go()), holdMs: 60_000 });
  const [patient, impatient] = [watch(enter()), watch(enter(true))];
  await jest.advanceTimersByTimeAsync(59_999);
  expect([patient.entry, impatient.entry]).toEqual([undefined, undefined]);
  await jest.advanceTimersByTimeAsync(1);
  const free = { kind: 'go', probe: false };
  expect([patient.entry, impatient.entry]).toEqual([free, free]);
});

test('nobody waits for longer than a handler may', async () => {
  const { enter, go, done } = gate();
  done({ ...(await go()), holdMs: 3_600_000 });
  const waiting = watch(enter());
  await jest.advanceTimersByTimeAsync(WAIT_MS_MAX - 1);
  expect(waiting.entry).toBeUndefined();
  await jest.advanceTimersByTimeAsync(1);
  expect(waiting.entry).toEqual({
    kind: 'shut',
    forMs: 3_600_000 - WAIT_MS_MAX,
    failing: false,
    detail: 'the endpoint asked for patience',
  });
});

test('a shorter patience does not end a longer one', async () => {
  const { enter, go, done } = gate();
  const calls = [await go(), await go()];
  done({ ...(calls[0] ?? { probe: false }), holdMs: 60_000 });
  done({ ...(calls[1] ?? { probe: false }), holdMs: 1_000 });
  const waiting = watch(enter());
  await jest.advanceTimersByTimeAsync(59_999);
  expect(waiting.entry).toBeUndefined();
});

test('a delivery that is abandoned waits no more and takes nothing from others', async () => {
  const { enter, breakIt } = gate();
  await breakIt();
  const abandoned = new AbortController();
  const waiting = enter(false, abandoned.signal);
  const other = watch(enter());
  abandoned.abort(new Error('the channel is lost'));
  await expect(waiting).rejects.toThrow('the channel is lost');
  await jest.advanceTimersByTimeAsync(openMs);
  expect(other.entry).toEqual({ kind: 'go', probe: true });
});

test('a closed gate lets nobody through and keeps nobody', async () => {
  const { enter, breakIt, close } = gate();
  await breakIt();
  const waiting = watch(enter());
  close();
  await jest.advanceTimersByTimeAsync(0);
  expect(waiting.entry).toMatchObject({ kind: 'shut', detail: 'the subscription ends' });
  await jest.advanceTimersByTimeAsync(openMs);
  expect(await enter()).toMatchObject({ kind: 'shut', failing: false });
});

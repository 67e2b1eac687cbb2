import { expect, test } from '@jest/globals';
import { keepOpen, type Opened, retryDelayMs } from '../../consumer-sdk/src/rabbit/keep-open.js';

/** A thing that opens, or not, as the test says, and can be lost. */
function fakeThing(failures: unknown[] = []) {
  const opens: number[] = [];
  const closes: number[] = [];
  const losses: unknown[] = [];
  let lose = (_cause: unknown) => {};
  const kept = keepOpen<number>({
    what: 'the thing',
    async open(): Promise<Opened<number>> {
      const failure = failures.shift();
      if (failure !== undefined) throw failure;
      const value = opens.push(opens.length);
      const lost = new Promise<unknown>((resolve) => {
        lose = resolve;
      });
      return { value, lost, close: async () => void closes.push(value) };
    },
    onLost: (cause) => losses.push(cause),
    isFatal: (error) => error === 'fatal',
  });
  return { kept, closes, losses, lose: (cause: unknown) => lose(cause) };
}

/** Longer than the first pauses take together. */
const SOON_MS = 5_000;

test('what fails to open is tried again until it opens', async () => {
  const { kept, losses } = fakeThing(['first', 'second']);
  expect(await kept.get(SOON_MS)).toBe(1);
  expect(losses).toEqual(['first', 'second']);
  await kept.close();
});

test('what is lost is closed and opened again, and who needs it waits for the next', async () => {
  const { kept, lose, closes, losses } = fakeThing();
  expect(await kept.get(SOON_MS)).toBe(1);
  lose('cut');
  // Loses are noticed in their own time.
  while (kept.current === 1) await Promise.resolve();
  expect(await kept.get(SOON_MS)).toBe(2);
  expect({ losses, closes }).toEqual({ losses: ['cut'], closes: [1] });
  await kept.close();
  expect(closes).toEqual([1, 2]);
});

test('a fatal error at the start ends it, and everybody who waits is told', async () => {
  const { kept, losses } = fakeThing(['fatal']);
  await expect(kept.get(SOON_MS)).rejects.toBe('fatal');
  await expect(kept.get(SOON_MS)).rejects.toBe('fatal');
  expect(losses).toEqual([]);
  await kept.close();
});

test('an error that would be fatal at the start is not, once it was open', async () => {
  const failures: unknown[] = [];
  const { kept, lose } = fakeThing(failures);
  await kept.get(SOON_MS);
  failures.push('fatal');
  lose('cut');
  while (kept.current === 1) await Promise.resolve();
  expect(await kept.get(SOON_MS)).toBe(2);
  await kept.close();
});

test('who waits too long is told why it is not open', async () => {
  const { kept } = fakeThing(new Array(9).fill('refused'));
  await expect(kept.get(20)).rejects.toMatchObject({
    message: 'the thing was not open within 20 ms',
    cause: 'refused',
  });
  await kept.close();
});

test('closing ends a pause at once and refuses those who wait', async () => {
  const { kept } = fakeThing(new Array(9).fill('refused'));
  const waiting = kept.get(SOON_MS);
  const closing = kept.close();
  await expect(waiting).rejects.toThrow('the thing is closed');
  await closing;
  await expect(kept.get(SOON_MS)).rejects.toThrow('the thing is closed');
});

test('pauses double up to fifteen seconds and are spread over half their length', () => {
  expect([0, 1, 2, 20].map((failures) => retryDelayMs(failures, 1))).toEqual([
    200, 400, 800, 15_000,
  ]);
  expect(retryDelayMs(3, 0)).toBe(800);
});

import { type Message, PermanentError, RetryLater } from '@escrowmq/consumer';
import { expect, test } from '@jest/globals';
import { deliver } from '../../broker/src/notify/deliver.js';
import type { CallEnd, Entry } from '../../broker/src/notify/gate.js';
import type { Outcome } from '../../broker/src/notify/outcome.js';
import { NOW, recordingObserver } from '../support/engine-fakes.js';
import { delivered, storedWebhook } from '../support/webhook-fakes.js';

const LIMIT_MS = 10_000;
const OLD = { preparedAt: NOW - LIMIT_MS - 1 };
const FREE: Entry = { kind: 'go', probe: false };

interface Case {
  entry?: Entry;
  outcome?: Outcome;
  message?: Partial<Message>;
  webhook?: Parameters<typeof storedWebhook>[0];
}

/** One delivery, with what it threw and everything it did. */
async function tryOne({ entry = FREE, outcome, message, webhook }: Case) {
  const observer = recordingObserver();
  const seen = {
    posts: 0,
    ends: [] as CallEnd[],
    disabled: [] as string[],
    impatient: undefined as boolean | undefined,
    closed: false,
  };
  const stored = storedWebhook({
    enabledAt: 0,
    ...webhook,
    settings: { giveUpAfterMs: LIMIT_MS, ...webhook?.settings },
  });
  const thrown: unknown = await deliver(delivered(message), {
    gate: {
      enter: async ({ impatient }) => {
        seen.impatient = impatient;
        return entry;
      },
      done: (end) => {
        seen.ends.push(end);
        return undefined;
      },
      close: () => {
        seen.closed = true;
      },
    },
    webhook: () => stored,
    post: async () => {
      seen.posts += 1;
      return outcome ?? { kind: 'delivered' };
    },
    disable: async (_webhook, reason) => {
      seen.disabled.push(reason);
    },
    now: () => NOW,
    observer,
  }).catch((error: unknown) => error);
  const results = observer.counts.map(([, { result }]) => result);
  return { thrown, results, ...seen };
}

const FAILED: Outcome = { kind: 'failed', detail: 'HTTP 500' };
const LATER: Outcome = { kind: 'later', afterMs: 60_000, detail: 'HTTP 429 with Retry-After' };

test('a delivered message is consumed, however old', async () => {
  for (const message of [{}, OLD]) {
    const { thrown, results, ends } = await tryOne({ message });
    expect(thrown).toBeUndefined();
    expect(results).toEqual(['delivered']);
    expect(ends).toEqual([{ probe: false }]);
  }
});

test('a failure spends an attempt and counts against the endpoint', async () => {
  const { thrown, results, ends } = await tryOne({ outcome: FAILED });
  expect(thrown).toEqual(new Error('HTTP 500'));
  expect(thrown).not.toBeInstanceOf(PermanentError);
  expect(results).toEqual(['failed']);
  expect(ends).toEqual([{ probe: false, failure: 'HTTP 500' }]);
});

test.each([FAILED, LATER])(
  'a message that is too old is given up after $detail',
  async (outcome) => {
    const { thrown, results, impatient, posts } = await tryOne({ outcome, message: OLD });
    expect(thrown).toBeInstanceOf(PermanentError);
    expect(String(thrown)).toContain(
      `older than ${LIMIT_MS} ms: ${outcome.kind === 'failed' ? 'HTTP 500' : 'HTTP 429'}`,
    );
    expect(results).toEqual([]);
    expect({ impatient, posts }).toEqual({ impatient: true, posts: 1 });
  },
);

test('N07: a message that was moved back from the dead letters is not too old for its attempts', async () => {
  const message = { ...OLD, returned: true };
  const { thrown, results, impatient } = await tryOne({ outcome: FAILED, message });
  expect(thrown).toEqual(new Error('HTTP 500'));
  expect(thrown).not.toBeInstanceOf(PermanentError);
  expect({ results, impatient }).toEqual({ results: ['failed'], impatient: false });
});

test('an endpoint that asks for patience is held, and lives', async () => {
  const { thrown, results, ends } = await tryOne({ outcome: LATER });
  expect(thrown).toEqual(new RetryLater(60_000, 'HTTP 429 with Retry-After'));
  expect(results).toEqual(['postponed']);
  expect(ends).toEqual([{ probe: false, holdMs: 60_000 }]);
});

test('an endpoint that is gone is disabled, and the message goes back, however old', async () => {
  for (const message of [{}, OLD]) {
    const { thrown, disabled, closed } = await tryOne({ outcome: { kind: 'gone' }, message });
    expect(disabled).toEqual(['the endpoint answered HTTP 410']);
    expect(closed).toBe(true);
    expect(thrown).toEqual(new RetryLater(1_000, 'HTTP 410: the webhook is disabled'));
  }
});

test('before a shut gate no call is made', async () => {
  const entry: Entry = { kind: 'shut', forMs: 5_000, failing: false, detail: 'asked to wait' };
  for (const message of [{}, OLD]) {
    const { thrown, posts, results, ends } = await tryOne({ entry, message });
    expect(thrown).toEqual(new RetryLater(5_000, 'asked to wait'));
    expect({ posts, results, ends }).toEqual({ posts: 0, results: ['postponed'], ends: [] });
  }
});

test('an old message is given up while the endpoint fails, without a call of its own', async () => {
  const entry: Entry = { kind: 'shut', forMs: 5_000, failing: true, detail: 'HTTP 500' };
  expect((await tryOne({ entry })).thrown).not.toBeInstanceOf(PermanentError);
  const { thrown, posts } = await tryOne({ entry, message: OLD });
  expect(thrown).toBeInstanceOf(PermanentError);
  expect(posts).toBe(0);
});

test('age counts from when the message was due and from when the webhook was enabled', async () => {
  const recent = NOW - LIMIT_MS;
  for (const younger of [
    { message: { ...OLD, dueAt: recent } },
    { message: OLD, webhook: { enabledAt: recent } },
    { message: { preparedAt: recent } },
  ]) {
    const { thrown } = await tryOne({ outcome: FAILED, ...younger });
    expect(thrown).not.toBeInstanceOf(PermanentError);
  }
  const bothLongAgo = {
    message: { ...OLD, dueAt: recent - 1 },
    webhook: { enabledAt: recent - 1 },
  };
  expect((await tryOne({ outcome: FAILED, ...bothLongAgo })).thrown).toBeInstanceOf(PermanentError);
});

import { type CheckAnswer, type CheckRequest, EscrowError, LIMITS } from '@escrowmq/protocol';
import { afterEach, describe, expect, test } from '@jest/globals';
import type { CheckOutcome, ProducerGroup } from '../../broker/src/domain/ports.js';
import {
  type CheckPolls,
  createCheckPolls,
  type Poll,
} from '../../broker/src/engine/check-polls.js';
import { currentId, NOW, producerGroup } from '../support/engine-fakes.js';
import { codeOf } from '../support/intake-fakes.js';
import { whatIsReady } from '../support/ready.js';
import { until } from '../support/until.js';

const CALLED: CheckOutcome = {
  kind: 'answered',
  decision: 'unknown',
  endpoint: 'http://127.0.0.1:1/check',
  tookMs: 1,
};
const CALLS_ROOM = 5;

const pullGroup = (changes: Partial<ProducerGroup['checkPolicy']> = {}): ProducerGroup => ({
  ...producerGroup(changes),
  checkUrls: [],
  compensationUrls: [],
});

const check = (): CheckRequest => ({
  id: currentId(),
  producerGroup: 'accounts',
  businessKeys: [],
  preparedAt: NOW,
  attempt: 1,
});

function polling(options: { takeLate?: () => Promise<void>; busy?: string[] } = {}) {
  const late: [group: string, answer: CheckAnswer][] = [];
  const clock = { ms: 0 };
  const woken = { times: 0 };
  const called: CheckRequest[] = [];
  const polls = createCheckPolls({
    calls: {
      async ask(_group, request) {
        called.push(request);
        return CALLED;
      },
      roomFor: () => CALLS_ROOM,
      busyGroups: () => options.busy ?? [],
    },
    findGroup: async (name) => (name === 'nobody' ? undefined : { ...pullGroup(), name }),
    async takeLate(group, answer) {
      late.push([group, answer]);
      await options.takeLate?.();
    },
    wake: () => {
      woken.times += 1;
    },
    now: () => clock.ms,
  });
  const aborts: AbortController[] = [];
  const poll = (changes: Partial<Poll> = {}) => {
    const abort = new AbortController();
    aborts.push(abort);
    const { signal } = abort;
    return polls.poll({
      producerGroup: 'accounts',
      waitMs: 30_000,
      limit: 8,
      answers: [],
      signal,
      ...changes,
    });
  };
  return { polls, poll, aborts, late, clock, woken, called };
}

const answerTo = ({ id }: CheckRequest, decision: CheckAnswer['decision'] = 'commit') => ({
  id,
  decision,
});

/** Passes that find nothing, until the poll has ended. */
async function passesUntil(polls: CheckPolls, waiting: Promise<unknown>): Promise<void> {
  let ended = false;
  void waiting.finally(() => {
    ended = true;
  });
  await until('the poll ends', async () => {
    await polls.duringPass(whatIsReady);
    return ended;
  });
}

/** The wait of a poll with `waitMs` 0: its timer was set earlier and is shorter than this one. */
async function timersAreOver(): Promise<void> {
  await whatIsReady();
  await new Promise((resolve) => setTimeout(resolve, 2));
}

/** Timers of waits and of answers that do not come would keep the process. */
const tests: ReturnType<typeof polling>[] = [];
function begin(options: Parameters<typeof polling>[0] = {}) {
  const parts = polling(options);
  tests.push(parts);
  return parts;
}
afterEach(() => {
  for (const { polls } of tests.splice(0)) polls.close();
});

describe('a poll that waits', () => {
  test('it is handed the checks of one pass together, and its answers are theirs', async () => {
    const { polls, poll, clock, woken } = begin();
    const waiting = poll();
    await whatIsReady();
    expect(woken.times).toBe(1);
    const [a, b] = [check(), check()];
    const outcomes = [polls.ask(pullGroup(), a), polls.ask(pullGroup(), b)];
    expect(await waiting).toEqual([a, b]);
    clock.ms = 40;
    const messageData = [{ number: 0, data: 1 }];
    const answers = [answerTo(b, 'rollback'), { ...answerTo(a), messageData }];
    const next = poll({ answers });
    expect(await Promise.all(outcomes)).toEqual([
      { kind: 'answered', decision: 'commit', messageData, endpoint: 'pull', tookMs: 40 },
      { kind: 'answered', decision: 'rollback', endpoint: 'pull', tookMs: 40 },
    ]);
    polls.close();
    expect(await next).toEqual([]);
  });

  test('it takes no more than its limit, and the next poll has the rest', async () => {
    const { polls, poll } = begin();
    const first = poll({ limit: 2 });
    const second = poll({ limit: 2 });
    await whatIsReady();
    expect(polls.roomFor(pullGroup())).toBe(4);
    const checks = [check(), check(), check()];
    for (const one of checks) void polls.ask(pullGroup(), one);
    expect(polls.roomFor(pullGroup())).toBe(1);
    expect(await first).toEqual(checks.slice(0, 2));
    expect(await second).toEqual(checks.slice(2));
  });

  test('it ends empty when its time is over', async () => {
    const { polls, poll } = begin();
    const waiting = poll({ waitMs: 10 });
    await passesUntil(polls, waiting);
    expect(await waiting).toEqual([]);
    expect(polls.roomFor(pullGroup())).toBe(0);
  });

  test('one that does not wait still sees a pass that began after it', async () => {
    const { polls, poll } = begin();
    let end = () => {};
    const earlier = polls.duringPass(() => new Promise<void>((resolve) => (end = resolve)));
    const waiting = poll({ waitMs: 0 });
    await timersAreOver();
    end();
    await earlier;
    const due = check();
    await polls.duringPass(async () => {
      expect(polls.roomFor(pullGroup())).toBe(8);
      void polls.ask(pullGroup(), due);
    });
    expect(await waiting).toEqual([due]);
  });

  test('a pass that fails ends the wait of one that does not wait', async () => {
    const { polls, poll } = begin();
    const waiting = poll({ waitMs: 0 });
    await timersAreOver();
    const failing = polls.duringPass(async () => {
      throw new Error('the store is away');
    });
    await expect(failing).rejects.toThrow('the store is away');
    expect(await waiting).toEqual([]);
  });

  test('a caller who hangs up frees the place, and a shutdown ends all at once', async () => {
    const { polls, poll, aborts } = begin();
    const gone = poll();
    const other = poll();
    await whatIsReady();
    aborts[0]?.abort();
    expect(await gone).toEqual([]);
    expect(polls.roomFor(pullGroup())).toBe(8);
    polls.close();
    expect(await other).toEqual([]);
    expect(await poll()).toEqual([]);
  });

  test('a caller who was gone before it began waits for nothing', async () => {
    const { polls, poll } = begin();
    expect(await poll({ signal: AbortSignal.abort() })).toEqual([]);
    expect(polls.roomFor(pullGroup())).toBe(0);
  });

  test('more polls of a group than the limit are refused, and other groups are not', async () => {
    const { poll } = begin();
    for (let n = 0; n < LIMITS.pollsPerGroupMax; n += 1) void poll();
    await whatIsReady();
    expect(await codeOf(poll())).toBe('BROKER_BUSY');
    void poll({ producerGroup: 'orders' });
  });

  test('nobody polls for a group that is not registered', async () => {
    const { poll } = begin();
    expect(await codeOf(poll({ producerGroup: 'nobody' }))).toBe('PRODUCER_GROUP_NOT_FOUND');
  });
});

describe('answers', () => {
  test('none within the time limit is no answer, and one that comes later is late', async () => {
    const { polls, poll, late } = begin();
    const waiting = poll();
    await whatIsReady();
    const asked = polls.ask(pullGroup({ timeoutMs: 100 }), check());
    const [handed] = await waiting;
    expect(await asked).toEqual({
      kind: 'unanswered',
      endpoint: 'pull',
      tookMs: 100,
      detail: 'polled, and no answer came within 100 ms',
    });
    const answer = answerTo(handed!);
    void poll({ answers: [answer] });
    await whatIsReady();
    expect(late).toEqual([['accounts', answer]]);
  });

  test("another group's answer is not the answer", async () => {
    const { polls, poll, late } = begin();
    const waiting = poll();
    await whatIsReady();
    let outcome: CheckOutcome | undefined;
    void polls.ask(pullGroup(), check()).then((ended) => {
      outcome = ended;
    });
    const [handed] = await waiting;
    const answers = [answerTo(handed!, 'rollback')];
    void poll({ producerGroup: 'orders', answers });
    await whatIsReady();
    expect(outcome).toBeUndefined();
    expect(late).toEqual([['orders', answers[0]]]);
  });

  test('they are taken before the poll waits, all of them, and a failure is told', async () => {
    const error = new EscrowError('STORE_UNAVAILABLE', 'the store is away');
    const { poll, late } = begin({ takeLate: () => Promise.reject(error) });
    const answers = [answerTo(check()), answerTo(check())];
    expect(await codeOf(poll({ answers }))).toBe('STORE_UNAVAILABLE');
    expect(late).toHaveLength(2);
  });

  test('a check that is asked again ends the earlier question without an answer', async () => {
    const { polls, poll } = begin();
    const first = poll();
    await whatIsReady();
    const one = check();
    const earlier = polls.ask(pullGroup(), one);
    await first;
    const second = poll();
    await whatIsReady();
    const again = polls.ask(pullGroup(), one);
    expect(await earlier).toMatchObject({ kind: 'unanswered' });
    await second;
    void poll({ answers: [answerTo(one)] });
    expect(await again).toMatchObject({ kind: 'answered', decision: 'commit' });
  });

  test('every check that was handed out has its outcome when the broker stops', async () => {
    const { polls, poll } = begin();
    const waiting = poll();
    await whatIsReady();
    const asked = polls.ask(pullGroup(), check());
    await waiting;
    polls.close();
    expect(await asked).toMatchObject({ detail: 'the broker is shutting down' });
  });
});

describe('room', () => {
  const MINUTE_MS = 60_000;

  test('a group that nobody polls for has none, and is left out of claims', () => {
    const { polls } = begin();
    expect(polls.busyGroups()).toEqual([]);
    expect(polls.roomFor(pullGroup())).toBe(0);
    expect(polls.busyGroups()).toEqual(['accounts']);
    expect(polls.unpolled()).toEqual([]);
  });

  test('after a minute without a poll what is long overdue is asked, and gets no answer', async () => {
    const { polls, clock } = begin();
    polls.roomFor(pullGroup());
    clock.ms = MINUTE_MS - 1;
    expect(polls.roomFor(pullGroup())).toBe(0);
    clock.ms = MINUTE_MS;
    expect(polls.busyGroups()).toEqual([]);
    expect(polls.unpolled()).toEqual([{ groups: ['accounts'], overdueMs: MINUTE_MS }]);
    expect(polls.roomFor(pullGroup())).toBe(Number.POSITIVE_INFINITY);
    expect(await polls.ask(pullGroup(), check())).toEqual({
      kind: 'unanswered',
      endpoint: 'pull',
      tookMs: 0,
      detail: 'the producer group has no check URL, and nobody polls for its checks',
    });
  });

  test('a group that wants its alert sooner is asked sooner', () => {
    const { polls, clock } = begin();
    const sooner = pullGroup({ alertAfterMs: 5_000 });
    polls.roomFor(sooner);
    polls.roomFor({ ...pullGroup({ alertAfterMs: 0 }), name: 'at-once' });
    clock.ms = 1_000;
    expect(polls.unpolled()).toEqual([{ groups: ['at-once'], overdueMs: 1_000 }]);
    clock.ms = 5_000;
    expect(polls.unpolled()).toEqual([
      { groups: ['accounts'], overdueMs: 5_000 },
      { groups: ['at-once'], overdueMs: 1_000 },
    ]);
  });

  test('who polls, or works on what he polled, is not quiet', async () => {
    const { polls, poll, clock } = begin();
    polls.roomFor(pullGroup());
    clock.ms = MINUTE_MS - 1;
    const waiting = poll({ limit: 1 });
    await whatIsReady();
    expect(polls.busyGroups()).toEqual([]);
    expect(polls.roomFor(pullGroup())).toBe(1);
    const asked = polls.ask(pullGroup(), check());
    const [handed] = await waiting;
    clock.ms = 3 * MINUTE_MS;
    expect(polls.unpolled()).toEqual([]);
    expect(polls.busyGroups()).toEqual(['accounts']);
    const next = poll({ answers: [answerTo(handed!)], waitMs: 0 });
    await asked;
    await passesUntil(polls, next);
    expect(await next).toEqual([]);
    expect(polls.busyGroups()).toEqual(['accounts']);
    clock.ms = 4 * MINUTE_MS;
    expect(polls.busyGroups()).toEqual([]);
    expect(polls.unpolled()).toHaveLength(1);
  });

  test('a group that takes checks and answers none does not take the place of all others', async () => {
    const { polls, poll } = begin();
    void poll({ limit: 64 });
    const second = poll({ limit: 64 });
    await whatIsReady();
    expect(polls.roomFor(pullGroup())).toBe(64);
    for (let n = 0; n < 64; n += 1) void polls.ask(pullGroup(), check());
    expect(polls.roomFor(pullGroup())).toBe(0);
    expect(polls.busyGroups()).toEqual(['accounts']);
    polls.close();
    expect(await second).toEqual([]);
  });

  test('beyond the groups it remembers, each gives no answer at once: none waits for ever', () => {
    const { polls } = begin();
    const room = (name: string) => polls.roomFor({ ...pullGroup(), name });
    for (let n = 0; n < 1_000; n += 1) expect(room(`group-${n}`)).toBe(0);
    expect(room('one-more')).toBe(Number.POSITIVE_INFINITY);
    expect(room('group-0')).toBe(0);
    expect(polls.busyGroups()).toHaveLength(1_000);
  });

  test('a group with check URLs is asked by polls while somebody polls, and else by calls', async () => {
    const { polls, poll, called } = begin({ busy: ['accounts'] });
    const both = producerGroup();
    expect(polls.roomFor(both)).toBe(CALLS_ROOM);
    expect(await polls.ask(both, check())).toEqual(CALLED);
    expect(polls.busyGroups()).toEqual(['accounts']);
    const waiting = poll({ limit: 1 });
    await whatIsReady();
    expect(polls.roomFor(both)).toBe(CALLS_ROOM + 1);
    expect(polls.busyGroups()).toEqual([]);
    const [polled, next] = [check(), check()];
    void polls.ask(both, polled);
    expect(await polls.ask(both, next)).toEqual(CALLED);
    expect(await waiting).toEqual([polled]);
    expect(called).toHaveLength(2);
  });

  test('a pull group that gets check URLs is called from then on', async () => {
    const { polls, clock, called } = begin();
    polls.roomFor(pullGroup());
    clock.ms = MINUTE_MS;
    expect(polls.roomFor(producerGroup())).toBe(CALLS_ROOM);
    expect([polls.busyGroups(), polls.unpolled()]).toEqual([[], []]);
    await polls.ask(producerGroup(), check());
    expect(called).toHaveLength(1);
  });
});

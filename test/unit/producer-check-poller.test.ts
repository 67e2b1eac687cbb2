import { type CheckAnswer, type CheckRequest, EscrowError } from '@escrowmq/protocol';
import { afterEach, expect, test } from '@jest/globals';
import type { CheckDecider } from '../../producer-sdk/src/checks/check-decider.js';
import {
  type CheckPoller,
  type CheckPollerOptions,
  createPollerOf,
} from '../../producer-sdk/src/checks/check-poller.js';
import { problemAnswer } from '../support/fake-broker.js';
import {
  type FakePullBroker,
  type PullScripted,
  startFakePullBroker,
} from '../support/fake-pull-broker.js';
import { recordingLogger } from '../support/producer-database.js';
import { deferred } from '../support/ready.js';
import { until } from '../support/until.js';

const brokers: FakePullBroker[] = [];
const pollers: CheckPoller[] = [];
afterEach(async () => {
  await Promise.all(pollers.splice(0).map((poller) => poller.close()));
  await Promise.all(brokers.splice(0).map((broker) => broker.close()));
});

async function startBroker(...script: PullScripted[]): Promise<FakePullBroker> {
  const broker = await startFakePullBroker(script);
  brokers.push(broker);
  return broker;
}

const { logger, records } = recordingLogger();
afterEach(() => {
  records.length = 0;
});

/** Answers commit, after `gate`; remembers what it was asked, and how many it had at a time. */
function deciderOf(gate: Promise<unknown> = Promise.resolve()) {
  const seen = { ids: [] as string[], now: 0, most: 0 };
  const decider: CheckDecider = {
    answerTimeoutMs: 2_500,
    logger,
    async decide({ id }: CheckRequest): Promise<CheckAnswer> {
      seen.ids.push(id);
      seen.now += 1;
      seen.most = Math.max(seen.most, seen.now);
      await gate;
      seen.now -= 1;
      return { id, decision: 'commit' };
    },
  };
  return { seen, decider };
}

function pollerOf(
  at: FakePullBroker[],
  {
    decider = deciderOf().decider,
    ...options
  }: Partial<CheckPollerOptions> & { decider?: CheckDecider } = {},
): CheckPoller {
  const poller = createPollerOf(decider, {
    brokers: at.map(({ address }) => address),
    producerGroup: 'accounts',
    ...options,
  });
  pollers.push(poller);
  return poller;
}

const commits = (ids: string[]) => ids.map((id) => ({ id, decision: 'commit' }));
const sorted = (ids: string[]) => [...ids].sort();

test('a check is answered at once, while the next poll already waits for more', async () => {
  const broker = await startBroker();
  pollerOf([broker], { apiKey: 'secret' }).start();
  await until('a poll waits', () => broker.waiting() === 1);
  const startedAt = performance.now();
  const ids = broker.offer(1);
  await until('it is answered', () => broker.answers().length === 1);
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  expect(broker.answers()).toEqual(commits(ids));
  await until('the next poll waits', () => broker.waiting() === 1);
  expect(broker.polls[0]).toMatchObject({ waitMs: 30_000, limit: 8, answers: [] });
  expect(broker.polls.find(({ answers }) => answers.length > 0)).toMatchObject({ waitMs: 0 });
  for (const { path, authorization } of broker.polls) {
    expect([path, authorization]).toEqual(['/v1/producer-groups/accounts/checks', 'Bearer secret']);
  }
});

test('no more than concurrencyMax checks are decided at a time, and no more are asked for', async () => {
  const broker = await startBroker();
  const gate = deferred();
  const { decider, seen } = deciderOf(gate.promise);
  const ids = broker.offer(20);
  pollerOf([broker], { decider, concurrencyMax: 3 }).start();
  await until('three are under way', () => seen.now === 3);
  expect(broker.polls.map(({ limit }) => limit)).toEqual([3]);
  gate.resolve();
  // An answer whose poll took too long is given again: the broker takes it once.
  const answered = () => new Set(broker.answers().map(({ id }) => id));
  await until('all are answered', () => answered().size === 20);
  expect(seen.most).toBe(3);
  expect(sorted([...answered()])).toEqual(sorted(ids));
});

test('one slow decision holds up neither the other answers nor the next polls', async () => {
  const broker = await startBroker();
  const gate = deferred();
  const slow = deciderOf(gate.promise).decider;
  const quick = deciderOf().decider;
  const [first] = broker.offer(1);
  const decider: CheckDecider = {
    ...quick,
    decide: (check, limitMs) => (check.id === first ? slow : quick).decide(check, limitMs),
  };
  pollerOf([broker], { decider, concurrencyMax: 2 }).start();
  await until('a poll waits', () => broker.waiting() === 1);
  expect(broker.polls.map(({ limit }) => limit)).toEqual([2, 1]);
  const others = broker.offer(5);
  await until('the others are answered', () => broker.answers().length === 5);
  expect(sorted(broker.answers().map(({ id }) => id))).toEqual(others);
  gate.resolve();
  await until('it is answered', () => broker.answers().length === 6);
});

test('every broker address is polled, and an answer goes to the broker that asked', async () => {
  const both = [await startBroker(), await startBroker()];
  pollerOf(both).start();
  await until('both are polled', () => both.every((broker) => broker.waiting() === 1));
  for (const broker of both) {
    const ids = broker.offer(2);
    await until('it is answered', () => broker.answers().length === 2);
    expect(broker.answers()).toEqual(commits(ids));
  }
});

test('several instances poll side by side, and no check is decided twice', async () => {
  const broker = await startBroker();
  const { decider, seen } = deciderOf();
  for (let instance = 0; instance < 3; instance += 1) {
    pollerOf([broker], { decider, concurrencyMax: 2 }).start();
  }
  await until('all wait', () => broker.waiting() === 3);
  const ids = broker.offer(30);
  await until('all are answered', () => broker.answers().length === 30);
  expect(sorted(seen.ids)).toEqual(sorted(ids));
});

test('a broker that is dead holds up no other, and is polled again with growing pauses', async () => {
  const dead = await startBroker();
  const broker = await startBroker();
  await dead.close();
  pollerOf([dead, broker]).start();
  await until('the failure is told', () => records.length === 1);
  const ids = broker.offer(1);
  await until('it is answered', () => broker.answers().length === 1);
  expect(broker.answers()).toEqual(commits(ids));
  expect(records).toMatchObject([
    { level: 'warn', fields: { broker: dead.address, error: { code: 'BROKER_UNREACHABLE' } } },
  ]);
});

const BUSY = new EscrowError('BROKER_BUSY', 'too many polls');

test.each<[string, PullScripted]>([
  ['as a header', { status: 503, headers: { 'retry-after': '1' }, body: 'a page of a proxy' }],
  ['of a problem', problemAnswer(BUSY, { 'retry-after': '1' })],
])('Retry-After %s is kept to, and then polling goes on', async (_, busy) => {
  const broker = await startBroker(busy);
  pollerOf([broker]).start();
  await until('it is polled again', () => broker.polls.length === 2);
  const [first, second] = broker.polls;
  expect(second!.at - first!.at).toBeGreaterThanOrEqual(990);
  const ids = broker.offer(1);
  await until('it is answered', () => broker.answers().length === 1);
  expect(broker.answers()).toEqual(commits(ids));
});

test('a row of failures is told once, and the pauses between its polls grow', async () => {
  const broken: PullScripted = { status: 200, body: '{"checks":[{"id":"no"}]}' };
  const broker = await startBroker(...Array<PullScripted>(5).fill(broken));
  pollerOf([broker]).start();
  await until('it is polled six times', () => broker.polls.length === 6);
  const at = broker.polls.map((poll) => poll.at);
  // Half of 50 + 100 + 200 + 400 + 800 ms is certain, the other half is random.
  expect(at[5]! - at[0]!).toBeGreaterThanOrEqual(770);
  expect(at[5]! - at[4]!).toBeGreaterThan(at[1]! - at[0]!);
  expect(records).toHaveLength(1);
});

test('a broker that does not wait is not flooded with polls', async () => {
  const none: PullScripted = { status: 200, body: '{"checks":[]}' };
  const broker = await startBroker(...Array<PullScripted>(5).fill(none));
  pollerOf([broker]).start();
  await until('it is polled six times', () => broker.polls.length === 6);
  expect(broker.polls[5]!.at - broker.polls[0]!.at).toBeGreaterThanOrEqual(770);
  expect(records).toEqual([]);
});

test('an answer whose reply is lost is delivered again', async () => {
  const broker = await startBroker('behave', 'lose reply');
  const [id] = broker.offer(1);
  expect(await pollerOf([broker]).runOnce()).toBe(1);
  expect(broker.answers()).toEqual(commits([id!, id!]));
});

test('an answer that the broker refuses is told and dropped, and polling goes on', async () => {
  const refusal = problemAnswer(new EscrowError('INVALID_REQUEST', 'no'));
  const broker = await startBroker('behave', refusal);
  pollerOf([broker], { concurrencyMax: 1 }).start();
  await until('a poll waits', () => broker.waiting() === 1);
  const [refused] = broker.offer(1);
  await until('it is told', () => records.length === 1);
  expect(records[0]).toMatchObject({
    fields: { transactionId: refused, error: { code: 'INVALID_REQUEST' } },
  });
  const [next] = broker.offer(1);
  await until('the next is answered', () => broker.answers().some(({ id }) => id === next));
});

test('close ends the poll at once, and waits for the answers under way', async () => {
  const broker = await startBroker();
  const gate = deferred();
  const { decider, seen } = deciderOf(gate.promise);
  const poller = pollerOf([broker], { decider });
  poller.start();
  await until('a poll waits', () => broker.waiting() === 1);
  const ids = broker.offer(1);
  await until('it is being decided', () => seen.now === 1);
  await until('the next poll waits', () => broker.waiting() === 1);
  let isClosed = false;
  const closed = poller.close().then(() => {
    isClosed = true;
  });
  await until('the poll has ended', () => broker.waiting() === 0);
  expect(isClosed).toBe(false);
  const more = broker.offer(1);
  gate.resolve();
  await closed;
  expect(broker.answers()).toEqual(commits(ids));
  expect(seen.ids).not.toContain(more[0]);
  expect(records).toEqual([]);
  expect(() => poller.start()).toThrow('closed');
});

test('close does not wait for the pause after a failure', async () => {
  const busy = problemAnswer(BUSY, { 'retry-after': '600' });
  const broker = await startBroker(busy);
  const poller = pollerOf([broker]);
  poller.start();
  await until('the failure is told', () => records.length === 1);
  const startedAt = performance.now();
  await poller.close();
  expect(performance.now() - startedAt).toBeLessThan(10_000);
});

test('runOnce answers what is due at every broker and says how much that was', async () => {
  const both = [await startBroker(), await startBroker()];
  const poller = pollerOf(both, { concurrencyMax: 2 });
  both[0]!.offer(5);
  both[1]!.offer(1);
  expect(await poller.runOnce({ waitMs: 100 })).toBe(6);
  expect(await poller.runOnce({ waitMs: 100 })).toBe(0);
  expect(both.map((broker) => broker.answers().length)).toEqual([5, 1]);
});

test('runOnce waits for a first check, and no longer than it is told to', async () => {
  const broker = await startBroker();
  const poller = pollerOf([broker]);
  const running = poller.runOnce({ waitMs: 20_000 });
  await until('a poll waits', () => broker.waiting() === 1);
  broker.offer(1);
  expect(await running).toBe(1);
});

test('runOnce throws the refusal of one broker after the others were polled', async () => {
  const refusing = await startBroker(problemAnswer(new EscrowError('FORBIDDEN', 'not this key')));
  const broker = await startBroker();
  broker.offer(1);
  const poller = pollerOf([refusing, broker]);
  await expect(poller.runOnce({ waitMs: 100 })).rejects.toMatchObject({ code: 'FORBIDDEN' });
  expect(broker.answers()).toHaveLength(1);
});

test('runOnce is not for a poller that is started', async () => {
  const poller = pollerOf([await startBroker()]);
  poller.start();
  await expect(poller.runOnce()).rejects.toThrow('not started');
});

test('options that could not work are refused at once', () => {
  const given = { brokers: ['http://127.0.0.1:7171'], producerGroup: 'accounts' };
  const invalid = [
    { ...given, brokers: [] },
    { ...given, brokers: ['http://127.0.0.1:7171/v1'] },
    { ...given, concurrencyMax: 0 },
    { ...given, concurrencyMax: 65 },
    { ...given, waitMs: 0 },
    { ...given, waitMs: 30_001 },
  ];
  for (const options of invalid) {
    expect(() => createPollerOf(deciderOf().decider, options)).toThrow(
      expect.objectContaining({ code: 'INVALID_CONFIGURATION' }),
    );
  }
});

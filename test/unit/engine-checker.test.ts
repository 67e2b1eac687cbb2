import {
  type CheckPolicy,
  type CheckRequest,
  type ErrorCode,
  EscrowError,
} from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import type {
  CheckOutcome,
  CheckToSave,
  DueCheck,
  Overdue,
  ProducerGroup,
  Verdict,
} from '../../broker/src/domain/ports.js';
import { type CheckerDeps, createChecker } from '../../broker/src/engine/checker.js';
import {
  clockAt,
  currentId,
  NOW,
  producerGroup,
  recordingObserver,
} from '../support/engine-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';

const ENDPOINT = 'http://127.0.0.1:1/check';
const HOUR_MS = 3_600_000;
const CONCURRENT_MAX = 256;

const answered = (
  decision: 'commit' | 'rollback' | 'unknown',
): Extract<CheckOutcome, { kind: 'answered' }> => ({
  kind: 'answered',
  decision,
  endpoint: ENDPOINT,
  tookMs: 12,
});
const unanswered: CheckOutcome = {
  kind: 'unanswered',
  endpoint: ENDPOINT,
  tookMs: 3_000,
  detail: 'no answer within 3000 ms',
};

const dueCheck = (changes: Partial<DueCheck> = {}): DueCheck => ({
  id: currentId(),
  state: { state: 'prepared', checks: 0, unanswered: 0, dueAt: NOW },
  producerGroup: 'accounts',
  businessKeys: ['phone:1'],
  preparedAt: NOW - 10_000,
  alerted: false,
  ...changes,
});

interface Options {
  policy?: Partial<CheckPolicy>;
  group?: ProducerGroup | undefined;
  ask?(request: CheckRequest): Promise<CheckOutcome>;
  decide?: CheckerDeps['decide'];
  saveChecks?(batch: readonly CheckToSave[]): Promise<void>;
  busyGroups?: string[];
  unpolled?: Overdue[];
  /** Checks that a group's endpoints take. @default any number */
  room?: Record<string, number>;
  now?: number;
}

function checking(due: DueCheck[], outcome: CheckOutcome, options: Options = {}) {
  const asked: CheckRequest[] = [];
  const saved: CheckToSave[] = [];
  const verdicts: Verdict[] = [];
  const history: { id: string; event: string; detail: Record<string, unknown> }[] = [];
  const claims: object[] = [];
  const released: string[] = [];
  const observer = recordingObserver();
  const group = 'group' in options ? options.group : producerGroup(options.policy);
  const checker = createChecker({
    store: {
      async claimDueChecks(claim) {
        claims.push(claim);
        return { now: NOW, due: due.splice(0, claim.limit) };
      },
      async saveChecks(batch) {
        await options.saveChecks?.(batch);
        saved.push(...batch);
      },
      async releaseChecks(ids) {
        released.push(...ids);
      },
      async appendHistory(entries) {
        history.push(
          ...entries.map(({ id, event }) => ({ id, event: event.event, detail: event.detail })),
        );
      },
    },
    asker: {
      ask(_, request) {
        asked.push(request);
        return options.ask?.(request) ?? Promise.resolve(outcome);
      },
      roomFor: ({ name }) =>
        (options.room?.[name] ?? Number.POSITIVE_INFINITY) -
        asked.filter(({ producerGroup }) => producerGroup === name).length,
      busyGroups: () => options.busyGroups ?? [],
      unpolled: () => options.unpolled ?? [],
    },
    findGroup: async (name) => (group === undefined ? undefined : { ...group, name }),
    async decide(verdict) {
      verdicts.push(verdict);
      if (options.decide !== undefined) return options.decide(verdict);
      return { id: verdict.id, state: verdict.decision === 'commit' ? 'committed' : 'rolledBack' };
    },
    transactionBytesMax: 1_000,
    clock: clockAt(options.now),
    random: () => 0.5,
    observer,
  });
  return { checker, asked, saved, verdicts, history, claims, released, observer };
}

/** One transaction, one check, and what became of it. */
async function checkOf(item: DueCheck, outcome: CheckOutcome, options: Options = {}) {
  const parts = checking([item], outcome, options);
  await parts.checker.checkOnce();
  await parts.checker.idle();
  return parts;
}

describe('the question', () => {
  test('it carries what the producer needs to find its transaction', async () => {
    const item = dueCheck({
      checkContext: 'shard-3',
      state: { state: 'prepared', checks: 2, unanswered: 3, dueAt: NOW },
    });
    const { asked } = await checkOf(item, answered('commit'));
    expect(asked).toEqual([
      {
        id: item.id,
        producerGroup: 'accounts',
        checkContext: 'shard-3',
        businessKeys: ['phone:1'],
        preparedAt: NOW - 10_000,
        attempt: 6,
      },
    ]);
  });

  test('a context that was not given is not sent', async () => {
    const { asked } = await checkOf(dueCheck(), answered('commit'));
    expect(Object.keys(asked[0]!)).not.toContain('checkContext');
  });
});

describe('answers', () => {
  test.each(['commit', 'rollback'] as const)('%s decides as any verdict does', async (decision) => {
    const item = dueCheck();
    const { verdicts, saved, history, observer } = await checkOf(item, answered(decision));
    expect(verdicts).toEqual([{ id: item.id, decision, decidedBy: { by: `check ${ENDPOINT}` } }]);
    expect(saved).toEqual([]);
    expect(history).toEqual([
      {
        id: item.id,
        event: 'check',
        detail: { answer: decision, tookMs: 12, endpoint: ENDPOINT },
      },
    ]);
    expect(observer.counts).toEqual([['checks', { outcome: decision }, 1]]);
  });

  test('a "commit" brings the data that prepare left open', async () => {
    const item = dueCheck();
    const messageData = [{ number: 0, data: { userId: 7 } }];
    const { verdicts, history } = await checkOf(item, { ...answered('commit'), messageData });
    const supplied = { data: messageData, bytesMax: 1_000 };
    expect(verdicts).toEqual([
      { id: item.id, decision: 'commit', decidedBy: { by: `check ${ENDPOINT}` }, supplied },
    ]);
    expect(JSON.stringify(history)).not.toContain('userId');
  });

  test.each(['MESSAGE_DATA_MISSING', 'INVALID_REQUEST', 'BODY_TOO_LARGE'] as const)(
    'a "commit" refused with %s is no answer: nothing is decided and nothing spent',
    async (code) => {
      const item = dueCheck();
      const { saved, history, observer } = await checkOf(item, answered('commit'), {
        decide: async () => {
          throw new EscrowError(code, 'its data does not fit');
        },
      });
      expect(saved).toMatchObject([
        {
          to: { state: 'prepared', checks: 0, unanswered: 1 },
          unansweredSince: NOW,
          history: [
            {
              event: 'check',
              detail: { answer: 'none', endpoint: ENDPOINT, detail: 'its data does not fit' },
            },
          ],
        },
      ]);
      expect(history).toEqual([]);
      expect(observer.counts).toEqual([['checks', { outcome: 'none' }, 1]]);
    },
  );

  test('"unknown" spends one attempt and puts the next check off', async () => {
    const item = dueCheck({
      state: { state: 'prepared', checks: 1, unanswered: 4, dueAt: NOW },
      unansweredSince: NOW - HOUR_MS,
      alerted: true,
    });
    const { verdicts, saved } = await checkOf(item, answered('unknown'));
    expect(verdicts).toEqual([]);
    expect(saved).toEqual([
      {
        id: item.id,
        from: item.state,
        to: { state: 'prepared', checks: 2, unanswered: 0, dueAt: NOW + 20_000 },
        alerted: false,
        history: [
          {
            at: NOW,
            event: 'check',
            detail: { answer: 'unknown', tookMs: 12, endpoint: ENDPOINT },
          },
        ],
      },
    ]);
  });

  test('the last "unknown" parks with an alert, and rolls nothing back', async () => {
    const item = dueCheck({ state: { state: 'prepared', checks: 2, unanswered: 0, dueAt: NOW } });
    const options = { policy: { unknownMax: 3 } };
    const { verdicts, saved, observer } = await checkOf(item, answered('unknown'), options);
    expect(verdicts).toEqual([]);
    expect(saved).toMatchObject([
      {
        to: { state: 'parked', reason: 'unresolved', parkedAt: NOW },
        history: [{ event: 'check' }, { event: 'parked', detail: { reason: 'unresolved' } }],
      },
    ]);
    expect(observer.alerts).toEqual([
      {
        kind: 'parked',
        transactionId: item.id,
        producerGroup: 'accounts',
        detail: 'answered "unknown" 3 times',
      },
    ]);
  });

  test('an answer against the decision on record changes nothing and is recorded (F36)', async () => {
    const item = dueCheck();
    const conflict = new EscrowError('STATE_CONFLICT', 'it is rolledBack');
    const { history, saved, observer } = await checkOf(item, answered('commit'), {
      decide: () => Promise.reject(conflict),
    });
    expect(history).toMatchObject([{ id: item.id, event: 'conflict' }]);
    expect(saved).toEqual([]);
    expect(observer.failures).toEqual([
      [`a check contradicts the decision on ${item.id}`, conflict],
    ]);
  });

  test('an answer that could not be recorded is reported, and asked for again', async () => {
    const item = dueCheck();
    const away = new EscrowError('STORE_UNAVAILABLE', 'away');
    const { history, observer } = await checkOf(item, answered('commit'), {
      decide: () => Promise.reject(away),
    });
    expect(history).toEqual([]);
    expect(observer.failures).toEqual([[`check ${item.id}`, away]]);
  });
});

describe('no answer', () => {
  test('it spends nothing, is saved, and the next check comes later', async () => {
    const item = dueCheck({ state: { state: 'prepared', checks: 1, unanswered: 1, dueAt: NOW } });
    const { verdicts, saved, observer } = await checkOf(item, unanswered);
    expect(verdicts).toEqual([]);
    expect(saved).toEqual([
      {
        id: item.id,
        from: item.state,
        to: { state: 'prepared', checks: 1, unanswered: 2, dueAt: NOW + 20_000 },
        unansweredSince: NOW,
        alerted: false,
        history: [
          {
            at: NOW,
            event: 'check',
            detail: {
              answer: 'none',
              tookMs: 3_000,
              endpoint: ENDPOINT,
              detail: 'no answer within 3000 ms',
            },
          },
        ],
      },
    ]);
    expect(observer.alerts).toEqual([]);
    expect(observer.counts).toEqual([['checks', { outcome: 'none' }, 1]]);
  });

  test('the attempts that "unknown" would have are never used up by it', async () => {
    const item = dueCheck({
      state: { state: 'prepared', checks: 14, unanswered: 9_999, dueAt: NOW },
    });
    const { saved } = await checkOf(item, unanswered);
    expect(saved).toMatchObject([{ to: { state: 'prepared', checks: 14, unanswered: 10_000 } }]);
  });

  test.each([
    ['not before alertAfter', HOUR_MS - 1, false, [], false],
    ['at alertAfter', HOUR_MS, false, ['checkUnanswered'], true],
    ['only once', 2 * HOUR_MS, true, [], true],
  ])('an alert is raised %s', async (_, sinceMs, alerted, alerts, savedAs) => {
    const unansweredSince = NOW - sinceMs;
    const { saved, observer } = await checkOf(dueCheck({ unansweredSince, alerted }), unanswered);
    expect(observer.alerts.map(({ kind }) => kind)).toEqual(alerts);
    expect(saved).toMatchObject([{ unansweredSince, alerted: savedAs }]);
  });

  test('a group with alertAfter 0 is told at once', async () => {
    const policy = { alertAfterMs: 0 };
    const { observer, saved } = await checkOf(dueCheck(), unanswered, { policy });
    expect(observer.alerts).toMatchObject([
      { kind: 'checkUnanswered', detail: 'no answer within 3000 ms' },
    ]);
    expect(saved).toMatchObject([{ alerted: true }]);
  });

  test('a group that vanished is no answer, and nobody is asked', async () => {
    const item = dueCheck();
    const { asked, saved, verdicts } = await checkOf(item, answered('rollback'), {
      group: undefined,
    });
    expect(asked).toEqual([]);
    expect(verdicts).toEqual([]);
    expect(saved).toMatchObject([
      {
        to: { state: 'prepared', checks: 0, unanswered: 1, dueAt: NOW + 10_000 },
        history: [{ detail: { detail: 'producer group accounts is not registered' } }],
      },
    ]);
  });

  test('a result that can not be saved is reported, and the check comes again', async () => {
    const item = dueCheck();
    const error = new Error('the store is away');
    const { observer, checker, saved } = await checkOf(item, unanswered, {
      saveChecks: () => Promise.reject(error),
    });
    expect(observer.failures).toEqual([[`check ${item.id}`, error]]);
    expect(saved).toEqual([]);
    expect(await checker.checkOnce()).toBe(0);
  });
});

describe('a pass', () => {
  test('it begins as many as are due and does not wait for their answers', async () => {
    const answer = deferred<CheckOutcome>();
    const { checker, saved } = checking([dueCheck(), dueCheck()], unanswered, {
      ask: () => answer.promise,
    });
    expect(await checker.checkOnce()).toBe(2);
    expect(await checker.checkOnce()).toBe(0);
    expect(saved).toEqual([]);
    answer.resolve(unanswered);
    await checker.idle();
    expect(saved).toHaveLength(2);
  });

  test('busy groups are passed over, so that a slow one holds up nobody', async () => {
    const { checker, claims } = checking([], unanswered, { busyGroups: ['slow'] });
    await checker.checkOnce();
    const claim = { limit: CONCURRENT_MAX, leaseMs: 45_000, onlyOverdue: [] };
    expect(claims).toEqual([{ ...claim, exceptGroups: ['slow'] }]);
  });

  test('what the endpoints of one group have no room for makes way for another group', async () => {
    const slow = Array.from({ length: 5 }, () => dueCheck({ producerGroup: 'slow' }));
    const other = dueCheck({ producerGroup: 'accounts' });
    const { checker, asked, released } = checking([...slow, other], answered('unknown'), {
      room: { slow: 2 },
    });
    await checker.checkOnce();
    await checker.idle();
    expect(asked.map(({ id }) => id)).toEqual([slow[0]!.id, slow[1]!.id, other.id]);
    expect(released).toEqual([slow[2]!.id, slow[3]!.id, slow[4]!.id]);
  });

  test('no more than the limit are under way, and each that ends makes room (F39)', async () => {
    const due = Array.from({ length: CONCURRENT_MAX + 6 }, () => dueCheck());
    const answers: ReturnType<typeof deferred<CheckOutcome>>[] = [];
    const { checker, asked, claims } = checking(due, unanswered, {
      ask() {
        const answer = deferred<CheckOutcome>();
        answers.push(answer);
        return answer.promise;
      },
    });
    expect(await checker.checkOnce()).toBe(CONCURRENT_MAX);
    expect(await checker.checkOnce()).toBe(0);
    expect(claims).toHaveLength(1);
    await whatIsReady();
    expect(asked).toHaveLength(CONCURRENT_MAX);

    for (const answer of answers.slice(0, 5)) answer.resolve(unanswered);
    await whatIsReady();
    expect(await checker.checkOnce()).toBe(5);
    expect(claims[1]).toMatchObject({ limit: 5 });
    await whatIsReady();
    for (const answer of answers) answer.resolve(unanswered);
    await checker.idle();
    expect(await checker.checkOnce()).toBe(1);
    await whatIsReady();
    answers.at(-1)!.resolve(unanswered);
    await checker.idle();
  });

  test('results of one moment are saved together', async () => {
    const sizes: number[] = [];
    const { checker } = checking([dueCheck(), dueCheck(), dueCheck()], answered('unknown'), {
      saveChecks: async (batch) => {
        sizes.push(batch.length);
      },
    });
    await checker.checkOnce();
    await checker.idle();
    expect(sizes).toEqual([3]);
  });

  test('a check that fails takes no other with it (F49)', async () => {
    const [bad, good] = [dueCheck(), dueCheck()];
    const { checker, saved, observer } = checking([bad, good], unanswered, {
      ask: (request) =>
        request.id === bad.id
          ? Promise.reject(new Error('a mistake'))
          : Promise.resolve(unanswered),
    });
    await checker.checkOnce();
    await checker.idle();
    expect(saved.map(({ id }) => id)).toEqual([good.id]);
    expect(observer.failures.map(([what]) => what)).toEqual([`check ${bad.id}`]);
  });
});

describe('answers for which no check is under way', () => {
  const late = (decision: 'commit' | 'rollback' | 'unknown') => ({ id: currentId(), decision });

  test.each(['commit', 'rollback'] as const)(
    'a late %s decides as well, within its group, on record',
    async (decision) => {
      const { checker, verdicts, history, observer } = checking([], unanswered);
      const answer = late(decision);
      await checker.takeLate('accounts', answer);
      expect(verdicts).toEqual([
        {
          id: answer.id,
          decision,
          decidedBy: { by: 'check pull' },
          producerGroup: 'accounts',
        },
      ]);
      const detail = { answer: decision, endpoint: 'pull', late: true };
      expect(history).toEqual([{ id: answer.id, event: 'check', detail }]);
      expect(observer.counts).toEqual([['checks', { outcome: decision }, 1]]);
    },
  );

  test('a late "unknown" changes nothing', async () => {
    const { checker, verdicts, history } = checking([], unanswered);
    await checker.takeLate('accounts', late('unknown'));
    expect([verdicts, history]).toEqual([[], []]);
  });

  test('one that repeats the decision on record adds nothing to it', async () => {
    const record = { decision: 'commit', at: NOW, by: 'producer' } as const;
    const { checker, history } = checking([], unanswered, {
      decide: async ({ id }) => ({ id, state: 'forwarded', decision: record }),
    });
    await checker.takeLate('accounts', late('commit'));
    expect(history).toEqual([]);
  });

  const refused = (code: ErrorCode, details = {}) => ({
    decide: async () => {
      throw new EscrowError(code, 'refused', { details });
    },
  });

  test('one that contradicts the decision on record is recorded as a conflict', async () => {
    const options = refused('STATE_CONFLICT');
    const { checker, history, observer } = checking([], unanswered, options);
    await checker.takeLate('accounts', late('rollback'));
    expect(history).toMatchObject([{ event: 'conflict', detail: { answer: 'rollback' } }]);
    expect(observer.failures).toHaveLength(1);
  });

  test('of what is purged nothing is recorded, for nobody would take it away again', async () => {
    const options = refused('STATE_CONFLICT', { purged: true });
    const { checker, history, observer } = checking([], unanswered, options);
    await checker.takeLate('accounts', late('rollback'));
    expect(history).toEqual([]);
    expect(observer.failures).toHaveLength(1);
  });

  test('one without the data that is open is recorded, and decides nothing', async () => {
    const { checker, history } = checking([], unanswered, refused('MESSAGE_DATA_MISSING'));
    await checker.takeLate('accounts', late('commit'));
    const detail = { answer: 'none', endpoint: 'pull', late: true, detail: 'refused' };
    expect(history).toMatchObject([{ event: 'check', detail }]);
  });

  test('one for an id that is unknown in its group is ignored', async () => {
    const { checker, history } = checking([], unanswered, refused('TRANSACTION_NOT_FOUND'));
    await checker.takeLate('accounts', late('commit'));
    expect(history).toEqual([]);
  });

  test('one that the store can not take is told to whoever brought it', async () => {
    const { checker } = checking([], unanswered, refused('STORE_UNAVAILABLE'));
    await expect(checker.takeLate('accounts', late('commit'))).rejects.toMatchObject({
      code: 'STORE_UNAVAILABLE',
    });
  });
});

test('of groups that nobody polls for, only what is overdue is claimed', async () => {
  const unpolled = [{ groups: ['accounts'], overdueMs: 60_000 }];
  const { checker, claims } = checking([], unanswered, { unpolled });
  await checker.checkOnce();
  expect(claims).toMatchObject([{ exceptGroups: [], onlyOverdue: unpolled }]);
});

import { describe, expect, test } from '@jest/globals';
import type { Answer } from '../../producer-sdk/src/fault-kit/asker.js';
import {
  type Evidence,
  judge,
  type Moment,
  type TransactionEvidence,
} from '../../producer-sdk/src/fault-kit/judge.js';

const AFTER: Moment = 'after it had ended';

const checked = (decision: 'commit' | 'rollback' | 'unknown', moment: Moment = AFTER) => ({
  moment,
  answer: { decision } satisfies Answer,
});

function transaction(given: Partial<TransactionEvidence>): TransactionEvidence {
  return { id: 'a', isStored: true, verdicts: [], checks: [checked('commit')], ...given };
}

function judged(
  given: Partial<Evidence>,
  ...transactions: Partial<TransactionEvidence>[]
): string[] {
  return judge({
    committed: true,
    claimedCommitted: false,
    isCommitCut: false,
    transactions: transactions.map(transaction),
    ...given,
  });
}

describe('agreement', () => {
  test.each<[string, Partial<Evidence>, Partial<TransactionEvidence>]>([
    ['commit all around', { claimedCommitted: true }, { verdicts: ['commit', 'commit'] }],
    [
      'rollback all around',
      { committed: false },
      { verdicts: ['rollback'], checks: [checked('rollback')] },
    ],
    ['no verdict at all', {}, {}],
    [
      'unknown while it was open, then commit',
      {},
      { checks: [checked('unknown', 'while it was open'), checked('commit')] },
    ],
    [
      'rollback before it began, and no commit',
      { committed: false },
      { checks: [checked('rollback', 'before it began'), checked('rollback')] },
    ],
    [
      'a prepare that never arrived, and no commit',
      { committed: false },
      { isStored: false, checks: [] },
    ],
  ])('%s is no finding', (_name, evidence, seen) => {
    expect(judged(evidence, seen)).toEqual([]);
  });

  test('a second id that every check rolls back is no finding', () => {
    expect(judged({}, {}, { id: 'b', checks: [checked('rollback')] })).toEqual([]);
  });
});

describe('disagreement', () => {
  test.each<[Moment, RegExp]>([
    ['before it began', /^check answered rollback before the local transaction began/],
    ['while it was open', /^check answered rollback while the local transaction was still open/],
    [AFTER, /^check answered rollback although the local transaction had committed/],
    [
      'while the database could not be reached',
      /^check answered rollback while it could not reach/,
    ],
  ])('a rollback %s, of what committed, is said once', (moment, words) => {
    const checks = [checked('rollback', moment), checked('rollback', moment)];
    const findings = judged({}, { checks });
    expect(findings).toEqual([expect.stringMatching(words)]);
  });

  test('a commit for what rolled back names the row that was not its own', () => {
    expect(judged({ committed: false }, {})).toEqual([
      expect.stringMatching(
        /although the local transaction did not commit.*on the same connection/,
      ),
    ]);
  });

  test('a commit while it was open names the barrier row outside of it, whatever came then', () => {
    const checks = [checked('commit', 'while it was open'), checked('commit')];
    const outside = [expect.stringMatching(/barrier row was written outside/)];
    expect(judged({}, { checks })).toEqual(outside);
    expect(judged({ committed: false }, { checks })).toEqual(outside);
  });

  test('a rollback that was sent for what committed is told apart by the COMMIT that was cut', () => {
    const seen = { verdicts: ['rollback'] as const };
    expect(judged({ isCommitCut: true }, seen)).toEqual([
      expect.stringMatching(/after a COMMIT that got no answer, and that COMMIT had happened/),
    ]);
    expect(judged({}, seen)).toEqual([
      expect.stringMatching(/rollback was sent for a local transaction that committed/),
    ]);
  });

  test('a commit that was sent for what rolled back is a finding', () => {
    const seen = { verdicts: ['commit'] as const, checks: [checked('rollback')] };
    expect(judged({ committed: false }, seen)).toEqual([
      expect.stringMatching(/First the database, then the message/),
    ]);
  });

  test('a result that claims more than the database holds is a finding', () => {
    const seen = { checks: [checked('rollback')] };
    expect(judged({ committed: false, claimedCommitted: true }, seen)).toEqual([
      expect.stringMatching(/no row of it is durable/),
    ]);
  });

  test('answers that change are a finding even where the last one is right', () => {
    const checks = [checked('rollback', 'before it began'), checked('commit')];
    expect(judged({ committed: false }, { checks })).toContainEqual(
      expect.stringMatching(/answered differently \(rollback, commit\)/),
    );
  });

  test('checks that never decide are a finding that says what came instead', () => {
    const none = { moment: AFTER, answer: { decision: 'none', why: 'status 404' } as const };
    expect(judged({}, { checks: [none] })).toEqual([
      expect.stringMatching(/never decided \(the last one: no answer: status 404\)/),
    ]);
    expect(judged({}, { checks: [checked('unknown')] })).toEqual([
      expect.stringMatching(/never decided \(the last one: unknown\)/),
    ]);
  });

  test('a local COMMIT without a prepare that arrived is a finding', () => {
    expect(judged({}, { isStored: false, checks: [] })).toEqual([
      expect.stringMatching(/no prepare of it ever reached the broker/),
    ]);
  });

  test('two ids that would both be sent are a finding', () => {
    expect(judged({}, {}, { id: 'b' })).toEqual([
      expect.stringMatching(/prepared 2 transactions, and checks would send the messages of 2/),
    ]);
  });
});

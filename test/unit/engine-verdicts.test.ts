import { describe, expect, test } from '@jest/globals';
import type { Found, VerdictResult } from '../../broker/src/domain/ports.js';
import { currentId, NOW } from '../support/engine-fakes.js';
import {
  codeOf,
  forwardedRow,
  LEASE_MS,
  prepareRequest,
  record,
  rolledBackRecord,
  rolledBackRow,
  row,
  takingIn,
  tombstone,
  verdictOn,
} from '../support/intake-fakes.js';
import { deferred, whatIsReady } from '../support/ready.js';

const COMMITTED = { state: 'committed', pending: 1, attempts: 0, dueAt: NOW } as const;
const UNDELIVERABLE = {
  state: 'parked',
  reason: 'undeliverable',
  pending: 1,
  parkedAt: NOW,
} as const;

describe('verdicts', () => {
  test('a commit that moved its row is forwarded by whoever moved it', async () => {
    const { intake, moved, observer } = takingIn();
    const id = currentId();
    expect(await intake.decide(verdictOn(id, 'commit'))).toEqual({ id, state: 'committed' });
    expect(moved).toMatchObject([{ ids: [id] }]);
    expect(moved[0]!.leaseLeftMs).toBeLessThanOrEqual(LEASE_MS);
    expect(observer.counts).toEqual([['verdicts', { decision: 'commit', result: 'moved' }, 1]]);
  });

  test('a rollback forwards nothing and lets go of the messages', async () => {
    const { intake, moved, held } = takingIn();
    const request = prepareRequest();
    await intake.prepare(request, {});
    const answer = await intake.decide(verdictOn(request.id!, 'rollback'));
    expect(answer.state).toBe('rolledBack');
    expect(moved).toEqual([]);
    expect(held.take(request.id!)).toBeUndefined();
  });

  test('a commit without a lease forwards nothing and lets go of the messages', async () => {
    const { intake, moved, held } = takingIn({ leaseMs: 0 });
    const request = prepareRequest();
    await intake.prepare(request, {});
    await intake.decide(verdictOn(request.id!, 'commit'));
    expect(moved).toEqual([]);
    expect(held.take(request.id!)).toBeUndefined();
  });

  test('in one batch only what moved is forwarded', async () => {
    const [a, b, c, d] = [currentId(), currentId(), currentId(), currentId()];
    const results: Record<string, VerdictResult> = {
      [a]: { kind: 'moved' },
      [b]: { kind: 'decided', found: forwardedRow(b) },
      [c]: { kind: 'unknown' },
      [d]: { kind: 'moved' },
    };
    const { intake, moved, verdicts } = takingIn({
      decide: async (batch) => batch.map(({ id }) => results[id]!),
    });
    const calls = [a, b, c, d].map((id) => codeOf(intake.decide(verdictOn(id, 'commit'))));
    expect(await Promise.all(calls)).toEqual(['ok', 'ok', 'TRANSACTION_NOT_FOUND', 'ok']);
    expect(verdicts).toHaveLength(1);
    expect(moved).toMatchObject([{ ids: [a, d] }]);
  });

  test('two verdicts on one id meet in successive batches', async () => {
    const { intake, verdicts } = takingIn();
    const id = currentId();
    await Promise.all([
      intake.decide(verdictOn(id, 'commit')),
      intake.decide(verdictOn(id, 'rollback')),
    ]);
    expect(verdicts.map((batch) => batch.map(({ decision }) => decision))).toEqual([
      ['commit'],
      ['rollback'],
    ]);
  });

  const decidedAs = (found: (id: string) => Found) => {
    const id = currentId();
    const parts = takingIn({ decide: async () => [{ kind: 'decided', found: found(id) }] });
    return { ...parts, id };
  };

  test.each([
    ['commit', 'forwarded', forwardedRow],
    ['commit', 'committed', (id: string) => row(id, COMMITTED)],
    ['commit', 'parked', (id: string) => row(id, UNDELIVERABLE)],
    ['rollback', 'rolledBack', rolledBackRow],
  ] as const)('a repeated %s of what is %s is a success', async (decision, state, found) => {
    const { intake, id, observer } = decidedAs(found);
    expect(await intake.decide(verdictOn(id, decision))).toMatchObject({ id, state });
    expect(observer.infos).toEqual([]);
  });

  test.each([
    ['rollback', 'forwarded', forwardedRow],
    ['rollback', 'committed', (id: string) => row(id, COMMITTED)],
    ['rollback', 'parked', (id: string) => row(id, UNDELIVERABLE)],
    ['commit', 'rolledBack', rolledBackRow],
  ] as const)(
    'a %s of what is %s is refused, with the decision',
    async (decision, state, found) => {
      const { intake, id, observer, moved } = decidedAs(found);
      const error = await intake.decide(verdictOn(id, decision)).catch((reason) => reason);
      expect(error).toMatchObject({
        code: 'STATE_CONFLICT',
        details: { id, state, decision: decision === 'commit' ? rolledBackRecord : record },
      });
      expect(error.message).toContain(id);
      expect(error.message).toContain(decision === 'commit' ? 'operator ann' : 'producer');
      expect(observer.counts.map(([name]) => name)).toEqual(['verdicts', 'verdictConflicts']);
      expect(observer.infos).toHaveLength(1);
      expect(moved).toEqual([]);
    },
  );

  test('a tombstone answers a repeat and refuses the other decision', async () => {
    const { intake, id } = decidedAs(tombstone);
    expect(await intake.decide(verdictOn(id, 'commit'))).toEqual({
      id,
      state: 'forwarded',
      decision: record,
      purged: true,
    });
    expect(await codeOf(intake.decide(verdictOn(id, 'rollback')))).toBe('STATE_CONFLICT');
  });

  test('the lease is counted from before the update, however long that takes', async () => {
    const updated = deferred<VerdictResult[]>();
    const { intake, moved } = takingIn({ decide: () => updated.promise });
    const call = intake.decide(verdictOn(currentId(), 'commit'));
    await whatIsReady();
    const waitedFrom = performance.now();
    await whatIsReady();
    const waitedMs = performance.now() - waitedFrom;
    updated.resolve([{ kind: 'moved' }]);
    await call;
    expect(moved[0]!.leaseLeftMs).toBeLessThanOrEqual(LEASE_MS - waitedMs);
  });
});

import { type ErrorCode, PARKED_REASONS, STATES } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import fc from 'fast-check';
import * as rules from '../../broker/src/domain/decide.js';
import type { State } from '../../broker/src/domain/transaction.js';

/*
 * The table of the state machine, written by hand: every event on every state. A state without a
 * row does not compile, an event without a column fails a test.
 */

const NOW = 1_000_000;
const MESSAGES = 3;
const ALL = 0b111;
const POLICY = { firstDelayMs: 10_000, delayMsMax: 300_000, unknownMax: 3, jitter: 0.5 };
const FORWARD_POLICY = { undeliverableAttemptsMax: 2 };

type Row =
  | Exclude<State['state'], 'parked'>
  | `parked: ${Extract<State, { state: 'parked' }>['reason']}`;

const EXAMPLES: Record<Row, State> = {
  prepared: { state: 'prepared', checks: 0, unanswered: 4, dueAt: 5 },
  committed: { state: 'committed', pending: 0b110, attempts: 0, dueAt: 5 },
  forwarded: { state: 'forwarded', forwardedAt: 5 },
  rolledBack: { state: 'rolledBack', decidedAt: 5 },
  'parked: unresolved': { state: 'parked', reason: 'unresolved', parkedAt: 5 },
  'parked: undeliverable': {
    state: 'parked',
    reason: 'undeliverable',
    pending: 0b100,
    parkedAt: 5,
  },
};

type Event = (state: State) => rules.Outcome;

const EVENTS = {
  commit: (state) => rules.commit(state, MESSAGES, NOW),
  rollback: (state) => rules.rollback(state, NOW),
  checkSaidUnknown: (state) => rules.checkSaidUnknown(state, POLICY, NOW),
  checkUnanswered: (state) => rules.checkUnanswered(state, POLICY, NOW),
  forwarded: (state) => rules.forwarded(state, { done: ALL }, FORWARD_POLICY, NOW),
  recheck: (state) => rules.recheck(state, NOW),
  resend: (state) => rules.resend(state, NOW),
} satisfies Record<string, Event>;

/** A state to move to, `keep`, or the code of the refusal. */
type Effect = State | 'keep' | ErrorCode;

const committedNow: State = { state: 'committed', pending: ALL, attempts: 0, dueAt: NOW };
const rolledBackNow: State = { state: 'rolledBack', decidedAt: NOW };
const untouched = {
  checkSaidUnknown: 'keep',
  checkUnanswered: 'keep',
  forwarded: 'keep',
} as const;

const TABLE: Record<Row, Record<keyof typeof EVENTS, Effect>> = {
  prepared: {
    commit: committedNow,
    rollback: rolledBackNow,
    checkSaidUnknown: { state: 'prepared', checks: 1, unanswered: 0, dueAt: NOW + 10_000 },
    checkUnanswered: { state: 'prepared', checks: 0, unanswered: 5, dueAt: NOW + 160_000 },
    forwarded: 'keep',
    recheck: { state: 'prepared', checks: 0, unanswered: 4, dueAt: NOW },
    resend: 'STATE_CONFLICT',
  },
  committed: {
    ...untouched,
    commit: 'keep',
    rollback: 'STATE_CONFLICT',
    forwarded: { state: 'forwarded', forwardedAt: NOW },
    recheck: 'STATE_CONFLICT',
    resend: { state: 'committed', pending: 0b110, attempts: 0, dueAt: NOW },
  },
  forwarded: {
    ...untouched,
    commit: 'keep',
    rollback: 'STATE_CONFLICT',
    recheck: 'STATE_CONFLICT',
    resend: 'STATE_CONFLICT',
  },
  rolledBack: {
    ...untouched,
    commit: 'STATE_CONFLICT',
    rollback: 'keep',
    recheck: 'STATE_CONFLICT',
    resend: 'STATE_CONFLICT',
  },
  'parked: unresolved': {
    ...untouched,
    commit: committedNow,
    rollback: rolledBackNow,
    recheck: { state: 'prepared', checks: 0, unanswered: 0, dueAt: NOW },
    resend: 'STATE_CONFLICT',
  },
  'parked: undeliverable': {
    ...untouched,
    commit: 'keep',
    rollback: 'STATE_CONFLICT',
    recheck: 'STATE_CONFLICT',
    resend: { state: 'committed', pending: 0b100, attempts: 0, dueAt: NOW },
  },
};

const ROWS = Object.keys(TABLE) as Row[];

function effectOf(outcome: rules.Outcome): Effect {
  if (outcome.kind === 'move') return outcome.to;
  return outcome.kind === 'keep' ? 'keep' : outcome.code;
}

describe.each(ROWS)('%s', (row) => {
  test.each(Object.keys(EVENTS) as (keyof typeof EVENTS)[])('%s', (event) => {
    expect(effectOf(EVENTS[event](EXAMPLES[row]))).toEqual(TABLE[row][event]);
  });
});

describe('the table', () => {
  test('it has a row for every state and every reason to park', () => {
    const parked = PARKED_REASONS.map((reason) => `parked: ${reason}`);
    const all = [...STATES.filter((state) => state !== 'parked'), ...parked];
    expect([...ROWS].sort()).toEqual(all.sort());
  });

  test('it has a column for every rule', () => {
    const columns = [...Object.keys(EVENTS), 'mayPurge'];
    expect(columns.sort()).toEqual(Object.keys(rules).sort());
  });

  test('a state that no rule knows stops the program', () => {
    const unheardOf = { state: 'lost' } as unknown as State;
    const strict = [EVENTS.commit, EVENTS.rollback, EVENTS.recheck, EVENTS.resend, rules.mayPurge];
    for (const event of strict) expect(() => event(unheardOf)).toThrow('no rule for');
  });
});

test('retention takes what is finished and nothing that is open (F76)', () => {
  const taken = ROWS.filter((row) => rules.mayPurge(EXAMPLES[row]));
  expect(taken).toEqual(['forwarded', 'rolledBack']);
});

describe('checks', () => {
  test('the last "unknown" parks, and never rolls back (F37)', () => {
    const state: State = { state: 'prepared', checks: 2, unanswered: 0, dueAt: 0 };
    expect(EVENTS.checkSaidUnknown(state)).toEqual({
      kind: 'move',
      to: { state: 'parked', reason: 'unresolved', parkedAt: NOW },
    });
  });

  test('a thousand checks without an answer spend nothing, and the delay stays at its cap (F37)', () => {
    let state: State = { state: 'prepared', checks: 2, unanswered: 0, dueAt: 0 };
    for (let check = 0; check < 1_000; check += 1) {
      const outcome = EVENTS.checkUnanswered(state);
      if (outcome.kind !== 'move') throw new Error('a check of a prepared row moves it');
      state = outcome.to;
    }
    expect(state).toEqual({
      state: 'prepared',
      checks: 2,
      unanswered: 1_000,
      dueAt: NOW + POLICY.delayMsMax,
    });
  });
});

describe('forwarding', () => {
  const committed = (attempts: number): State => ({
    state: 'committed',
    pending: 0b110,
    attempts,
    dueAt: 0,
  });

  const after = (attempts: number, result: rules.Forwarding) =>
    effectOf(rules.forwarded(committed(attempts), result, FORWARD_POLICY, NOW));

  test('a partial result clears what was confirmed, and the rest comes later', () => {
    expect(after(0, { done: 0b010, failure: 'unconfirmed' })).toEqual({
      state: 'committed',
      pending: 0b100,
      attempts: 1,
      dueAt: NOW + 1_000,
    });
  });

  test.each(['unroutable', 'refused'] as const)('what stays %s is parked in the end', (failure) => {
    expect(after(1, { done: 0b010, failure })).toEqual({
      state: 'parked',
      reason: 'undeliverable',
      pending: 0b100,
      parkedAt: NOW,
    });
  });

  test('U06: what was interrupted over the refusal of another goes again at once, at the cost of no attempt', () => {
    expect(after(19, { done: 0b010, failure: 'interrupted' })).toMatchObject({
      state: 'committed',
      attempts: 19,
      dueAt: NOW + 500,
    });
    // What waits for a time that comes sooner is not held up.
    const result = { done: 0, failure: 'interrupted', nextDueAt: NOW + 100 } as const;
    expect(after(19, result)).toMatchObject({ attempts: 19, dueAt: NOW + 100 });
  });

  test.each(['nacked', 'unconfirmed'] as const)('what was %s is tried for ever', (failure) => {
    expect(after(10_000, { done: 0, failure })).toMatchObject({
      state: 'committed',
      attempts: 10_001,
      dueAt: NOW + 300_000,
    });
  });

  describe('while something waits for its time', () => {
    const nextDueAt = NOW + 700;

    test('and nothing failed: due then, and no attempt', () => {
      expect(after(3, { done: 0b010, nextDueAt })).toEqual({
        state: 'committed',
        pending: 0b100,
        attempts: 3,
        dueAt: nextDueAt,
      });
    });

    test.each([
      [700, 700],
      [1_300, 1_000],
    ])('what failed and what waits, in %s ms, share the earlier time', (waitMs, dueInMs) => {
      const result = { done: 0b010, failure: 'nacked', nextDueAt: NOW + waitMs } as const;
      expect(after(0, result)).toMatchObject({ pending: 0b100, attempts: 1, dueAt: NOW + dueInMs });
    });

    test.each(['unroutable', 'refused'] as const)(
      'what is %s is tried on: a parked transaction would keep back what waits',
      (failure) => {
        const tried = after(1, { done: 0, failure, nextDueAt });
        expect(tried).toMatchObject({ state: 'committed', attempts: 2 });
        expect(after(2, { done: 0, failure })).toMatchObject({ state: 'parked' });
      },
    );

    test('all of it was done by somebody else: there is nothing to wait for', () => {
      expect(after(0, { done: ALL, nextDueAt })).toMatchObject({ state: 'forwarded' });
    });
  });

  test('a failure of what is done already counts for nothing', () => {
    expect(after(5, { done: ALL, failure: 'unroutable' })).toMatchObject({ state: 'forwarded' });
  });
});

// ---- any sequence of events, also of wrong ones

const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  fc.constant<Event>((state) => rules.commit(state, MESSAGES, NOW)),
  fc.constant<Event>((state) => rules.rollback(state, NOW)),
  fc.constant<Event>((state) => rules.recheck(state, NOW)),
  fc.constant<Event>((state) => rules.resend(state, NOW)),
  fc
    .record({
      unknownMax: fc.integer({ min: 1, max: 4 }),
      jitter: fc.double({ min: 0, max: 0.99, noNaN: true }),
    })
    .chain((policy) =>
      fc.constantFrom<Event>(
        (state) => rules.checkSaidUnknown(state, { ...POLICY, ...policy }, NOW),
        (state) => rules.checkUnanswered(state, { ...POLICY, ...policy }, NOW),
      ),
    ),
  fc
    .record({
      done: fc.nat(ALL),
      failure: fc.constantFrom('unroutable', 'nacked', 'unconfirmed', 'interrupted', 'refused'),
      nextDueAt: fc.option(fc.integer({ min: 1, max: 2 * NOW }), { nil: undefined }),
      max: fc.integer({ min: 1, max: 4 }),
    })
    .map(
      ({ done, failure, nextDueAt, max }): Event =>
        (state) =>
          rules.forwarded(
            state,
            { done, failure, nextDueAt },
            { undeliverableAttemptsMax: max },
            NOW,
          ),
    ),
);

const anyHistory = fc.array(anyEvent, { minLength: 1, maxLength: 60 });

/** Every state on the way, each with the event that led to it. */
function walk(history: readonly Event[]): { from: State; to: State; event: Event }[] {
  let state: State = EXAMPLES.prepared;
  return history.map((event) => {
    const from = state;
    const outcome = event(from);
    if (outcome.kind === 'move') state = outcome.to;
    return { from, to: state, event };
  });
}

function decisionOf(state: State): 'commit' | 'rollback' | undefined {
  if (state.state === 'rolledBack') return 'rollback';
  if (state.state === 'prepared') return undefined;
  return state.state === 'parked' && state.reason === 'unresolved' ? undefined : 'commit';
}

/** What may still be sent; `undefined` before a decision. */
function pendingOf(state: State): number | undefined {
  if (state.state === 'forwarded' || state.state === 'rolledBack') return 0;
  return 'pending' in state ? state.pending : undefined;
}

const holdsOnEveryStep = (holds: (step: ReturnType<typeof walk>[number]) => void) =>
  fc.assert(
    fc.property(anyHistory, (history) => {
      for (const step of walk(history)) holds(step);
    }),
    { numRuns: 2_000 },
  );

describe('in any sequence of events', () => {
  test('a decision is never reversed or forgotten', () => {
    holdsOnEveryStep(({ from, to }) => {
      const decided = decisionOf(from);
      if (decided !== undefined) expect(decisionOf(to)).toBe(decided);
    });
  });

  test('what is final stays as it is', () => {
    holdsOnEveryStep(({ from, to }) => {
      if (from.state === 'forwarded' || from.state === 'rolledBack') expect(to).toBe(from);
    });
  });

  test('what is pending only loses messages, and stays unsigned', () => {
    holdsOnEveryStep(({ from, to }) => {
      const before = pendingOf(from);
      const after = pendingOf(to);
      if (after !== undefined) expect(after).toBeGreaterThanOrEqual(0);
      if (before !== undefined && after !== undefined) expect(after & ~before).toBe(0);
    });
  });

  test('only a rollback leads to rolledBack', () => {
    holdsOnEveryStep(({ from, to, event }) => {
      if (to.state !== 'rolledBack' || from.state === 'rolledBack') return;
      expect(event(from)).toEqual(rules.rollback(from, NOW));
    });
  });

  test('only "unknown" spends a check, one at a time', () => {
    holdsOnEveryStep(({ from, to, event }) => {
      if (from.state !== 'prepared' || to.state !== 'prepared' || to.checks === from.checks) return;
      expect(to.checks).toBe(from.checks + 1);
      expect(event(from)).not.toEqual(rules.checkUnanswered(from, POLICY, NOW));
      expect(to.unanswered).toBe(0);
    });
  });

  test('what still owes something has something to do and a time for it', () => {
    holdsOnEveryStep(({ to }) => {
      if (to.state === 'prepared' || to.state === 'committed') expect(to.dueAt).toBeGreaterThan(0);
      if ('pending' in to) expect(to.pending).toBeGreaterThan(0);
    });
  });

  test('whatever moved, a repeat of the same verdict is a success that changes nothing (F25)', () => {
    holdsOnEveryStep(({ to }) => {
      const again = { commit: EVENTS.commit(to), rollback: EVENTS.rollback(to) };
      const decided = decisionOf(to);
      if (decided === 'commit') expect(again).toMatchObject({ commit: { kind: 'keep' } });
      if (decided === 'rollback') expect(again).toMatchObject({ rollback: { kind: 'keep' } });
    });
  });
});

import { PARKED_REASONS, STATES } from '@escrowmq/protocol';
import { describe, expect, test } from '@jest/globals';
import * as rules from '../../broker/src/domain/decide.js';
import type { State } from '../../broker/src/domain/transaction.js';
import { type OpenStore, rowOf } from '../support/store-fixtures.js';
import { type Effect, EVENT_CASES } from './event-cases.js';
import { STATE_CASE_NAMES, STATE_CASES } from './state-cases.js';

/** Fields that hold a time; the store's clock goes on between the rule and the row. */
const TIMES = new Set(['dueAt', 'forwardedAt', 'decidedAt', 'parkedAt']);

/** Equal, with times that may be later than expected by what passed meanwhile. */
function expectState(actual: State, expected: State, elapsedMs: number): void {
  expect(Object.keys(actual).sort()).toEqual(Object.keys(expected).sort());
  for (const [field, value] of Object.entries(expected)) {
    const found = actual[field as keyof State] as unknown;
    if (TIMES.has(field)) {
      expect(found).toBeGreaterThanOrEqual(value as number);
      expect(found).toBeLessThanOrEqual((value as number) + elapsedMs);
    } else {
      expect([field, found]).toEqual([field, value]);
    }
  }
}

function effectOf(outcome: rules.Outcome): Effect {
  if (outcome.kind === 'move') return outcome.to.state;
  return outcome.kind === 'keep' ? 'keep' : outcome.code;
}

/** Every state × every event: the store does what domain/decide.ts says, and nothing else. */
export function statesContract(opened: () => OpenStore): void {
  describe('every state × every event', () => {
    test('the table has every state', () => {
      const parked = PARKED_REASONS.map((reason) => `parked: ${reason}`);
      const all = [...STATES.filter((state) => state !== 'parked'), ...parked];
      expect(STATE_CASE_NAMES.filter((name) => all.includes(name)).sort()).toEqual(all.sort());
    });

    test('the table has every rule of domain/decide.ts', () => {
      const covered = new Set(Object.values(EVENT_CASES).map(({ rule }) => rule));
      expect([...covered].sort()).toEqual(Object.keys(rules).sort());
    });

    for (const stateName of STATE_CASE_NAMES) {
      for (const [eventName, event] of Object.entries(EVENT_CASES)) {
        const effect = event.effects[stateName] ?? 'keep';
        test(`${stateName}, ${eventName}: ${effect}`, async () => {
          const { store } = opened();
          const { id, seenByCheck } = await STATE_CASES[stateName](store);
          const row = await rowOf(store, id);
          const now = await store.now();
          const before = { id, row, seenByCheck, now };
          const outcome = event.outcome(before);
          await event.apply(store, before, outcome);

          if (event.rule === 'mayPurge') {
            expect(rules.mayPurge(row.state)).toBe(effect === 'gone');
          } else {
            expect(effectOf(outcome)).toBe(effect);
          }
          if (effect === 'gone') {
            const found = (await store.find([id])).get(id);
            expect(found).toEqual({
              kind: 'tombstone',
              id,
              producerGroup: 'accounts',
              decision: row.decision,
            });
            return;
          }
          const after = await rowOf(store, id);
          const elapsedMs = (await store.now()) - now;
          if (outcome.kind === 'move') expectState(after.state, outcome.to, elapsedMs);
          else expect(after).toEqual(row);
          // What only a parked row has must not outlive its parking.
          const parkedReason = (await store.view(id))?.parkedReason;
          expect(parkedReason).toBe('reason' in after.state ? after.state.reason : undefined);
        });
      }
    }
  });
}

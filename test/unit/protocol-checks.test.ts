import { CheckAnswer } from '@escrowmq/protocol';
import { expect, test } from '@jest/globals';
import fc from 'fast-check';

const ID = '0198f3c2-7a10-7cc3-98c4-dc0c0c07398f';
const DECISIONS = ['commit', 'rollback', 'unknown'];
/** Enough for every generator below to show all of its kinds. */
const BODIES = 1_000;

test.each(DECISIONS)('the answer %s is understood, with its id in either case', (decision) => {
  expect(CheckAnswer.parse({ id: ID, decision })).toEqual({ id: ID, decision });
  expect(CheckAnswer.parse({ id: ID.toUpperCase(), decision }).id).toBe(ID);
});

/** What well-meant endpoints, proxies and attackers answer. */
const almost = fc.oneof(
  fc.record({ id: fc.constant(ID) }),
  fc.record({ decision: fc.constantFrom(...DECISIONS) }),
  fc.record({
    id: fc.constant(ID),
    decision: fc.constantFrom(
      'COMMIT',
      'Commit',
      ' commit',
      'commit ',
      'committed',
      'rolledBack',
      '',
    ),
  }),
  fc.record({ id: fc.constant(ID), decision: fc.anything() }),
  fc.record({ id: fc.anything(), decision: fc.constantFrom(...DECISIONS) }),
  fc.record({
    id: fc.constant(ID),
    decision: fc.constantFrom(...DECISIONS),
    reason: fc.anything(),
  }),
  fc.constantFrom(...DECISIONS).map((decision) => [{ id: ID, decision }]),
  fc.constantFrom(...DECISIONS).map((decision) => JSON.stringify({ id: ID, decision })),
  fc.constantFrom(...DECISIONS).map((decision) => ({ data: { id: ID, decision } })),
  fc.constantFrom(...DECISIONS).map((decision) => Object.assign([], { id: ID, decision })),
  fc.constantFrom(...DECISIONS),
);

/** Exactly the two members, spelled exactly: written without the schema. */
function isAnAnswer(body: unknown): boolean {
  if (typeof body !== 'object' || body === null || Array.isArray(body)) return false;
  const { id, decision, ...rest } = body as Record<string, unknown>;
  if (typeof id !== 'string' || typeof decision !== 'string') return false;
  return id.toLowerCase() === ID && DECISIONS.includes(decision) && Object.keys(rest).length === 0;
}

test('of a thousand other bodies none is an answer', () => {
  const bodies = fc.sample(fc.oneof(fc.anything(), fc.jsonValue(), almost), {
    numRuns: BODIES,
    seed: 7,
  });
  const others = bodies.filter((body) => !isAnAnswer(body));
  expect(others.length).toBeGreaterThan(BODIES * 0.9);
  expect(others.filter((body) => CheckAnswer.safeParse(body).success)).toEqual([]);
});

test('whatever is taken for an answer is one', () => {
  fc.assert(
    fc.property(fc.oneof(fc.anything(), fc.jsonValue(), almost), (body) => {
      expect(CheckAnswer.safeParse(body).success).toBe(isAnAnswer(body));
    }),
    { numRuns: BODIES },
  );
});

test.each([
  [{ id: ID, decision: 'commit', messageData: [{ number: 0, data: null }] }, true],
  [{ id: ID, decision: 'commit', messageData: [{ number: 31, dataBase64: 'AA==' }] }, true],
  [{ id: ID, decision: 'rollback', messageData: [{ number: 0, data: 1 }] }, false],
  [{ id: ID, decision: 'unknown', messageData: [{ number: 0, data: 1 }] }, false],
  [{ id: ID, decision: 'commit', messageData: [] }, false],
  [{ id: ID, decision: 'commit', messageData: [{ number: 0 }] }, false],
  [{ id: ID, decision: 'commit', messageData: [{ number: 0, data: 1, dataBase64: '' }] }, false],
])('data goes with a commit only, and is the body of a message: %j', (body, isAnswer) => {
  expect(CheckAnswer.safeParse(body).success).toBe(isAnswer);
});

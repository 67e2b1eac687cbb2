import { describe, expect, test } from '@jest/globals';
import type { Ledger } from '../../examples/sharding-key-binding/src/demo/ledger.js';
import { type Figures, judge } from '../../examples/sharding-key-binding/src/demo/verdict.js';
import { INDEXES, type User } from '../../examples/sharding-key-binding/src/indexes.js';

const user = (userId: number): User => ({
  userId,
  phone: `phone-${userId}`,
  email: `email-${userId}`,
  identityCard: `card-${userId}`,
});
const entriesOf = (of: User) =>
  INDEXES.map((index) => ({ group: index.group, value: index.valueOf(of), userId: of.userId }));

/** Two users whom everybody agrees on, and two rollbacks, one of each kind decided by a check. */
function agreeing(): { ledger: Ledger; figures: Figures } {
  const users = [user(1), user(2)];
  return {
    ledger: { registered: users, rolledBack: 2, conflicts: 0 },
    figures: {
      users: [...users],
      entries: users.flatMap(entriesOf),
      deadLetters: [],
      broker: {
        committed: 2,
        rolledBack: 2,
        forwarded: 2,
        committedByCheck: 1,
        rolledBackByCheck: 1,
        unfinished: 0,
      },
      repeated: 3,
      waiting: 0,
      lookUps: { tried: 1, found: 1 },
    },
  };
}

/** The second user registers the first one's e-mail: no entry of theirs, but a dead letter. */
function withConflict() {
  const { ledger, figures } = agreeing();
  const second = { ...user(2), email: 'email-1' };
  ledger.registered[1] = second;
  ledger.conflicts = 1;
  figures.users[1] = second;
  figures.entries = figures.entries.filter(({ value }) => value !== 'email-2');
  figures.deadLetters.push({ group: 'email-index', user: second });
  return { ledger, figures };
}

describe("the demo's verdict", () => {
  test('has nothing to say when everything agrees', () => {
    const { ledger, figures } = agreeing();
    expect(judge(ledger, figures).differences).toEqual([]);
  });

  test('accepts an entry that is missing when there is a dead letter for it', () => {
    const { ledger, figures } = withConflict();
    expect(judge(ledger, figures).differences).toEqual([]);
  });

  test('names the user whose entry is missing without a dead letter', () => {
    const { ledger, figures } = withConflict();
    figures.deadLetters.length = 0;
    expect(judge(ledger, figures).differences).toContain(
      'lost: user 2, phone phone-2, is not in email_index',
    );
  });

  test('names the user who was acknowledged and has no row', () => {
    const { ledger, figures } = agreeing();
    figures.users.pop();
    const { differences } = judge(ledger, figures);
    expect(differences).toContain('lost: user 2, phone phone-2, was registered and has no row');
    expect(differences).toContain('users rows: 1, registered: 2');
  });

  test('names a user whose row nobody acknowledged and whose entries are missing', () => {
    const { ledger, figures } = agreeing();
    figures.users.push(user(3));
    expect(judge(ledger, figures).differences).toContain(
      'lost: user 3, phone phone-3, is not in phone_index, email_index, identity_index',
    );
  });

  test('names an entry that leads to no user', () => {
    const { ledger, figures } = agreeing();
    figures.entries.push({ group: 'phone-index', value: 'phone-9', userId: 9 });
    expect(judge(ledger, figures).differences).toContain(
      'phantom: phone-index says that phone-9 is user 9, who is not in the shards',
    );
  });

  test('names an entry that leads to a user with another value', () => {
    const { ledger, figures } = agreeing();
    figures.entries.push({ group: 'phone-index', value: 'phone-9', userId: 1 });
    expect(judge(ledger, figures).differences).toContain(
      'phantom: phone-index says that phone-9 is user 1, who is not in the shards',
    );
  });

  test.each([
    ['committed at the broker: 3, registered: 2', (f: Figures) => (f.broker.committed = 3)],
    ['forwarded: 1, committed at the broker: 2', (f: Figures) => (f.broker.forwarded = 1)],
    ['rolled back at the broker: 5, provoked: 2', (f: Figures) => (f.broker.rolledBack = 5)],
    ['transactions left open: 1, expected: 0', (f: Figures) => (f.broker.unfinished = 1)],
    ['messages left in queues: 1, expected: 0', (f: Figures) => (f.waiting = 1)],
    ['look-ups that found their user: 0, tried: 1', (f: Figures) => (f.lookUps.found = 0)],
    [
      'committed by a check: none, although some were provoked',
      (f: Figures) => (f.broker.committedByCheck = 0),
    ],
    [
      'rolled back by a check: none, although some were provoked',
      (f: Figures) => (f.broker.rolledBackByCheck = 0),
    ],
    ['index rows: 5, 3 x registered - dead letters: 6', (f: Figures) => f.entries.pop()],
    [
      'dead letters: 1, provoked: 0',
      (f: Figures) => f.deadLetters.push({ group: 'email-index', user: user(2) }),
    ],
  ])('says "%s"', (sentence, change) => {
    const { ledger, figures } = agreeing();
    change(figures);
    expect(judge(ledger, figures).differences).toContain(sentence);
  });
});

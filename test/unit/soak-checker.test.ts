import { afterEach, beforeEach, describe, expect, test } from '@jest/globals';
import { type CheckName, checkAll } from '../../soak/src/checker.js';
import { openTruth, type TruthDatabase } from '../../soak/src/truth.js';

/* The checker on a truth that was made up: one that is in order, and one thing wrong at a time. */

let truth: TruthDatabase;
beforeEach(() => {
  truth = openTruth(':memory:');
  truth.exec(IN_ORDER);
});
afterEach(() => truth.close());

/** A committed transaction of two messages, a rolled back one, a plain send, and a parked one. */
const IN_ORDER = `
  insert into business values
    ('committed', 0, 'aa', 'producer-1', 'local'), ('committed', 1, 'bb', 'producer-1', 'local'),
    ('sent', 0, 'cc', 'producer-2', 'send'), ('parked', 0, 'dd', 'producer-1', 'local');
  insert into effect values ('committed', 0, 'aa'), ('committed', 1, 'bb'), ('sent', 0, 'cc');
  insert into consumed values ('committed', 0), ('committed', 1), ('sent', 0);
  insert into barrier values ('committed', 'commit', 'producer-1'),
    ('rolledBack', 'rollback', 'producer-1'), ('parked', 'commit', 'producer-1'),
    ('neverPrepared', 'rollback', 'producer-2');
  insert into escrow values
    ('committed', 'forwarded', 'commit', null, 'none', 0, 0),
    ('rolledBack', 'rolledBack', 'rollback', 'check', 'none', 1, 0),
    ('sent', 'forwarded', 'commit', null, 'none', 0, 0),
    ('parked', 'parked', 'commit', null, 'undeliverable', 0, 0);
  insert into history values (1, 'parked', 0, 'parked', '{}');
  insert into edge values
    (1, 'committed', '', 'prepared', '', 'none', ''),
    (2, 'committed', 'prepared', 'committed', 'none', 'commit', ''),
    (3, 'committed', 'committed', 'forwarded', 'commit', 'commit', ''),
    (4, 'rolledBack', '', 'prepared', '', 'none', ''),
    (5, 'rolledBack', 'prepared', 'rolledBack', 'none', 'rollback', ''),
    (6, 'sent', '', 'committed', '', 'commit', ''),
    (7, 'sent', 'committed', 'forwarded', 'commit', 'commit', ''),
    (8, 'parked', '', 'prepared', '', 'none', ''),
    (9, 'parked', 'prepared', 'committed', 'none', 'commit', ''),
    (10, 'parked', 'committed', 'parked', 'commit', 'commit', '');`;

/** Names of the verdicts that are not zero, with the transactions they name. */
function verdicts(): Partial<Record<CheckName, string[]>> {
  const found = Object.entries(checkAll(truth)).filter(([, findings]) => findings.length > 0);
  return Object.fromEntries(
    found.map(([name, findings]) => [name, findings.map(({ transactionId }) => transactionId)]),
  );
}

test('nothing is wrong with a truth that is in order', () => {
  expect(verdicts()).toEqual({});
});

describe('what is wrong has its verdict, and no other:', () => {
  const cases: [string, string, Partial<Record<CheckName, string[]>>][] = [
    [
      'a committed message that nobody applied is lost',
      `delete from effect where transaction_id = 'committed' and message_number = 1;
       delete from consumed where transaction_id = 'committed' and message_number = 1`,
      { lost: ['committed'] },
    ],
    [
      'a transaction that the broker does not know at all is lost, and contradicts its barrier',
      `insert into business values ('unknown', 0, 'ee', 'producer-1', 'local');
       insert into barrier values ('unknown', 'commit', 'producer-1')`,
      { lost: ['unknown'], contradiction: ['unknown'] },
    ],
    [
      'a message that nobody committed is a phantom',
      `insert into effect values ('rolledBack', 0, 'ff'); insert into consumed values ('rolledBack', 0)`,
      { phantom: ['rolledBack'] },
    ],
    [
      'a message with two effects is applied twice',
      `insert into effect values ('sent', 0, 'cc')`,
      { appliedTwice: ['sent'] },
    ],
    [
      'an effect without its note is half applied',
      `delete from consumed where transaction_id = 'sent'`,
      { halfApplied: ['sent'] },
    ],
    [
      'a note without its effect is half applied, and the message is lost',
      `delete from effect where transaction_id = 'sent'`,
      { lost: ['sent'], halfApplied: ['sent'] },
    ],
    [
      'other bytes than were committed are altered',
      `update effect set sha256 = 'xx' where transaction_id = 'sent'`,
      { altered: ['sent'] },
    ],
    [
      'a prepare that nobody decided is stuck',
      `insert into escrow values ('open', 'prepared', 'none', null, 'none', 3, 0);
       insert into edge values (11, 'open', '', 'prepared', '', 'none', '')`,
      { stuck: ['open'] },
    ],
    [
      'a commit that was not forwarded is stuck, though all of it arrived',
      `update escrow set state = 'committed' where transaction_id = 'sent';
       delete from edge where entry = 7`,
      { stuck: ['sent'] },
    ],
    ['what was parked without a word is stuck', 'delete from history', { stuck: ['parked'] }],
    [
      'a change of state from an end is impossible',
      `insert into edge values (11, 'sent', 'forwarded', 'committed', 'commit', 'commit', '')`,
      { impossibleEdge: ['sent'] },
    ],
    [
      'a decision that became the other one is impossible',
      `insert into edge values (11, 'parked', 'parked', 'parked', 'commit', 'rollback', '')`,
      { impossibleEdge: ['parked'] },
    ],
    [
      'a commit of the store against a rollback of the barrier is a contradiction',
      `update escrow set state = 'forwarded', decision = 'commit' where transaction_id = 'rolledBack'`,
      { contradiction: ['rolledBack'] },
    ],
    [
      'a rollback of the store against a commit of the barrier is a contradiction',
      `update escrow set state = 'rolledBack', decision = 'rollback' where transaction_id = 'committed'`,
      { contradiction: ['committed'] },
    ],
    [
      'a commit of the store without a barrier row is a contradiction',
      `delete from barrier where transaction_id = 'committed'`,
      { contradiction: ['committed'] },
    ],
    [
      'a transaction that was accepted and is gone is unaccounted for',
      `delete from escrow where transaction_id = 'rolledBack'`,
      { unaccounted: ['rolledBack'] },
    ],
    [
      'a transaction that was never accepted is unaccounted for',
      `delete from edge where transaction_id = 'rolledBack'`,
      { unaccounted: ['rolledBack'] },
    ],
  ];
  test.each(cases)('%s', (_name, damage, expected) => {
    truth.exec(damage);
    expect(verdicts()).toEqual(expected);
  });
});

test('what was purged and counted is accounted for', () => {
  truth.exec(`delete from escrow where transaction_id = 'rolledBack';
    insert into counter values ('purgedRolledBack', 1)`);
  expect(verdicts()).toEqual({});
});

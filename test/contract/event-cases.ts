import type { ErrorCode } from '@escrowmq/protocol';
import type * as Rules from '../../broker/src/domain/decide.js';
import {
  checkSaidUnknown,
  checkUnanswered,
  commit,
  type Forwarding,
  forwarded,
  type Outcome,
  recheck,
  resend,
  rollback,
} from '../../broker/src/domain/decide.js';
import type { Found, Store, VerdictResult } from '../../broker/src/domain/ports.js';
import { byProducer, type Decision, type State } from '../../broker/src/domain/transaction.js';
import { PARTLY_DONE, type PreparedState, type StateCase } from './state-cases.js';

/** A row when the event comes. */
export interface Before {
  id: string;
  row: Extract<Found, { kind: 'row' }>;
  seenByCheck: PreparedState;
  now: number;
}

/** What an event does to one state, short enough for a table. */
export type Effect = State['state'] | 'keep' | 'gone' | ErrorCode;

export interface EventCase {
  /** The function of domain/decide.ts that knows the rule. */
  rule: keyof typeof Rules;
  outcome(before: Before): Outcome;
  /** Does to the store what the engine does when that is the outcome. */
  apply(store: Store, before: Before, outcome: Outcome): Promise<void>;
  /** What the design says, written by hand; `keep` where nothing is named. */
  effects: Partial<Record<StateCase, Effect>>;
}

const keep: Outcome = { kind: 'keep' };

/** How the store must answer a verdict when the rules say that outcome. */
const ANSWERS = { move: 'moved', keep: 'decided', refuse: 'decided' } as const;

function verdict(decision: Decision): Pick<EventCase, 'apply'> {
  return {
    async apply(store, { id, row }, outcome) {
      const { producerGroup } = row;
      const [result] = await store.decide(
        [{ id, decision, decidedBy: byProducer, producerGroup }],
        0,
      );
      must(result?.kind === ANSWERS[outcome.kind], decision, result);
      if (result?.kind === 'decided') must(result.found.id === id, 'the row it found', result);
    },
  };
}

function verdictOfAnotherGroup(decision: Decision): Omit<EventCase, 'effects'> {
  return {
    rule: decision,
    outcome: () => keep,
    async apply(store, { id }) {
      const verdict = { id, decision, decidedBy: byProducer, producerGroup: 'somebody-else' };
      const [result] = await store.decide([verdict], 0);
      must(result?.kind === 'unknown', 'unknown to another group', result);
    },
  };
}

function must(holds: boolean, what: string, result: VerdictResult | boolean | undefined): void {
  if (!holds) throw new Error(`expected ${what}, got ${JSON.stringify(result)}`);
}

const CHECK_RULES = { checkSaidUnknown, checkUnanswered };
const OPERATOR_RULES = { recheck, resend };

const POLICY = { firstDelayMs: 10_000, delayMsMax: 300_000, jitter: 0.5 };

/** A check that began when the row was prepared; by now the row may be anything. */
function check(rule: keyof typeof CHECK_RULES, unknownMax: number) {
  const policy = { ...POLICY, unknownMax };
  return {
    rule,
    outcome: ({ row, now }) => CHECK_RULES[rule](row.state, policy, now),
    async apply(store, { id, seenByCheck, now }) {
      const result = CHECK_RULES[rule](seenByCheck, policy, now);
      if (result.kind !== 'move') throw new Error('a check of a prepared row moves it');
      const { to } = result;
      await store.saveChecks([{ id, from: seenByCheck, to, alerted: false, history: [] }]);
    },
  } satisfies Omit<EventCase, 'effects'>;
}

/** Publishing that began when everything was pending; by now the row may be anything. */
function forwarding(result: Forwarding, undeliverableAttemptsMax: number) {
  const policy = { undeliverableAttemptsMax };
  return {
    rule: 'forwarded',
    outcome: ({ row, now }) => forwarded(row.state, result, policy, now),
    async apply(store, { id, row, now }) {
      const stale: State = { state: 'committed', pending: 0b11, attempts: 0, dueAt: now };
      const from = row.state.state === 'committed' ? row.state : stale;
      const outcome = forwarded(from, result, policy, now);
      if (outcome.kind !== 'move') throw new Error('a round of publishing moves a committed row');
      await store.saveForwards([
        { id, done: result.done, unrouted: 0, to: outcome.to, history: [] },
      ]);
    },
  } satisfies Omit<EventCase, 'effects'>;
}

/** An operator who saw the row as it is, or, when that is refused, as it was. */
function operator(rule: keyof typeof OPERATOR_RULES, saw: State, to: State) {
  const history = { at: 0, event: 'resolve', detail: { action: rule } } as const;
  return {
    rule,
    outcome: ({ row, now }) => OPERATOR_RULES[rule](row.state, now),
    async apply(store, { id, row }, outcome) {
      if (outcome.kind === 'move') {
        const moved = await store.resolve({ id, from: row.state, to: outcome.to, history });
        must(moved, `${rule} to move it`, moved);
        return;
      }
      const moved = await store.resolve({ id, from: saw, to, history });
      must(!moved, `${rule} of what was seen earlier to be refused`, moved);
    },
  } satisfies Omit<EventCase, 'effects'>;
}

const unresolved: State = { state: 'parked', reason: 'unresolved', parkedAt: 0 };
const undeliverable: State = { state: 'parked', reason: 'undeliverable', pending: 3, parkedAt: 0 };
const preparedAgain: State = { state: 'prepared', checks: 0, unanswered: 0, dueAt: 0 };
const committedAgain: State = { state: 'committed', pending: 3, attempts: 0, dueAt: 0 };

const commits: EventCase['effects'] = {
  prepared: 'committed',
  rolledBack: 'STATE_CONFLICT',
  'parked: unresolved': 'committed',
};
const rollsBack: EventCase['effects'] = {
  prepared: 'rolledBack',
  committed: 'STATE_CONFLICT',
  'committed: partly confirmed': 'STATE_CONFLICT',
  forwarded: 'STATE_CONFLICT',
  'parked: unresolved': 'rolledBack',
  'parked: undeliverable': 'STATE_CONFLICT',
};
const staysCommitted: EventCase['effects'] = {
  committed: 'committed',
  'committed: partly confirmed': 'committed',
};

/** Every event there is, in the words of the design. */
export const EVENT_CASES: Record<string, EventCase> = {
  'a commit': {
    ...verdict('commit'),
    rule: 'commit',
    outcome: ({ row, now }) => commit(row.state, row.messageCount, now),
    effects: commits,
  },
  'a rollback': {
    ...verdict('rollback'),
    rule: 'rollback',
    outcome: ({ row, now }) => rollback(row.state, now),
    effects: rollsBack,
  },
  "another group's commit": { ...verdictOfAnotherGroup('commit'), effects: {} },
  "another group's rollback": { ...verdictOfAnotherGroup('rollback'), effects: {} },
  'a check answered "unknown"': {
    ...check('checkSaidUnknown', 15),
    effects: { prepared: 'prepared' },
  },
  'the last check answered "unknown"': {
    ...check('checkSaidUnknown', 1),
    effects: { prepared: 'parked' },
  },
  'an unanswered check': { ...check('checkUnanswered', 1), effects: { prepared: 'prepared' } },
  'a confirm of all messages': {
    ...forwarding({ done: 0b11 }, 20),
    effects: { committed: 'forwarded', 'committed: partly confirmed': 'forwarded' },
  },
  'a confirm of some messages': {
    ...forwarding({ done: PARTLY_DONE, failure: 'unconfirmed' }, 20),
    effects: staysCommitted,
  },
  'a round without a confirm': {
    ...forwarding({ done: 0, failure: 'nacked' }, 1),
    effects: staysCommitted,
  },
  'an unroutable message': {
    ...forwarding({ done: 0, failure: 'unroutable' }, 20),
    effects: staysCommitted,
  },
  'a message unroutable for the last time': {
    ...forwarding({ done: PARTLY_DONE, failure: 'unroutable' }, 1),
    effects: { committed: 'parked', 'committed: partly confirmed': 'parked' },
  },
  'an operator who asks for a recheck': {
    ...operator('recheck', unresolved, preparedAgain),
    effects: {
      prepared: 'prepared',
      committed: 'STATE_CONFLICT',
      'committed: partly confirmed': 'STATE_CONFLICT',
      forwarded: 'STATE_CONFLICT',
      rolledBack: 'STATE_CONFLICT',
      'parked: unresolved': 'prepared',
      'parked: undeliverable': 'STATE_CONFLICT',
    },
  },
  'an operator who sends again': {
    ...operator('resend', undeliverable, committedAgain),
    effects: {
      prepared: 'STATE_CONFLICT',
      committed: 'committed',
      'committed: partly confirmed': 'committed',
      forwarded: 'STATE_CONFLICT',
      rolledBack: 'STATE_CONFLICT',
      'parked: unresolved': 'STATE_CONFLICT',
      'parked: undeliverable': 'committed',
    },
  },
  retention: {
    rule: 'mayPurge',
    // Not a move: the row goes, and only its tombstone is left.
    outcome: () => keep,
    async apply(store) {
      await store.purgeFinished({ olderThanMs: 0, limit: 1_000 });
    },
    effects: { forwarded: 'gone', rolledBack: 'gone' },
  },
};

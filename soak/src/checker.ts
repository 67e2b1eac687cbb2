import type { TruthDatabase } from './truth.js';

/*
 * The checker of transactional messages.
 *
 * A transactional message promises that a local transaction and its messages agree: both or
 * neither. Whether that was kept can't be asked of anybody who took part. A client knows what it was
 * told, and after a cut connection it was told nothing; a broker knows what it decided, which is
 * the very thing in doubt. Only the databases know, and only when everything has stopped. So the
 * checker asks no one and reads the truth: what each producer's database has committed, what the
 * consumers' database has applied, and what the store says in between.
 *
 *     producer's database            broker's store               consumers' database
 *     business  what must arrive     escrow  where it stands      effect    what was applied
 *     barrier   why it must, or not  edge    how it came there    consumed  the note against repeats
 *
 * `business` is written inside the local transaction, by the service itself: a row there means that
 * the transaction has committed, whatever its client came to think. `effect` is written by the
 * consumer in the transaction of its note, in a table without a key, so that what is applied twice
 * is there twice. `edge` is written by triggers, so that no code can forget a change of state.
 *
 * From these follow the verdicts, each a function below that returns what is wrong and nothing else:
 *
 *     lost            committed, and never applied
 *     phantom         applied, and never committed
 *     appliedTwice    applied more than once
 *     halfApplied     an effect without its note, or a note without its effect
 *     altered         applied, with other bytes than were committed
 *     stuck           still open when everything was calm, or parked without a word
 *     impossibleEdge  a change of state that may not be: from an end, or a decision reversed
 *     contradiction   the store decided one thing and the producer's barrier another
 *     unaccounted     accepted transactions that are in no state: the books don't balance
 *
 * What a clean run says: none of N transactions failed under these faults, so fewer than 3/N do,
 * with 95 % confidence and for these faults only. What it can't say: whether the faults hit
 * anything. That is asked separately (reach.ts), and a run whose faults did not bite has failed.
 */

/** What is wrong with one transaction. */
export interface Finding {
  transactionId: string;
  /** Whatever the check has to say about it. */
  [detail: string]: unknown;
}

export type CheckName = keyof typeof CHECKS;

/** Every check, by the name of its verdict. */
export const CHECKS = {
  lost,
  phantom,
  appliedTwice,
  halfApplied,
  altered,
  stuck,
  impossibleEdge,
  contradiction,
  unaccounted,
};

/** @returns the findings of every check; all are empty when every promise was kept */
export function checkAll(truth: TruthDatabase): Record<CheckName, Finding[]> {
  const results = Object.entries(CHECKS).map(([name, check]) => [name, check(truth)]);
  return Object.fromEntries(results) as Record<CheckName, Finding[]>;
}

/** Parked ones are not lost: an operator was told of them, and they are counted. */
function lost(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select b.transaction_id as transactionId, b.message_number as message, b.producer, b.kind, e.state
     from business b
     left join effect f using (transaction_id, message_number)
     left join escrow e using (transaction_id)
     where f.transaction_id is null and e.state is not 'parked'`,
  );
}

function phantom(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select f.transaction_id as transactionId, f.message_number as message, e.state
     from effect f
     left join business b using (transaction_id, message_number)
     left join escrow e using (transaction_id)
     where b.transaction_id is null`,
  );
}

function appliedTwice(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select transaction_id as transactionId, message_number as message, count(*) as times
     from effect group by transaction_id, message_number having count(*) > 1`,
  );
}

/** The note and the effect are one transaction: one without the other means that they were not. */
function halfApplied(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select f.transaction_id as transactionId, f.message_number as message, 'note' as missing
     from effect f left join consumed c using (transaction_id, message_number)
     where c.transaction_id is null
     union all
     select c.transaction_id, c.message_number, 'effect'
     from consumed c left join effect f using (transaction_id, message_number)
     where f.transaction_id is null`,
  );
}

function altered(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select f.transaction_id as transactionId, f.message_number as message,
       b.sha256 as committed, f.sha256 as applied
     from effect f join business b using (transaction_id, message_number)
     where f.sha256 <> b.sha256`,
  );
}

/** Nothing may wait unseen. What is parked has an entry in its history, which is raised as an alert. */
function stuck(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select e.transaction_id as transactionId, e.state, e.unknown_answers as unknownAnswers, e.unanswered
     from escrow e
     where e.state in ('prepared', 'committed')
       or (e.state = 'parked' and not exists (
         select 1 from history h where h.transaction_id = e.transaction_id and h.event = 'parked'))`,
  );
}

/** An insert has no state before it: a prepare, or a plain send that is committed at once. */
const EDGES = [
  ['', 'prepared'],
  ['', 'committed'],
  ['prepared', 'committed'],
  ['prepared', 'rolledBack'],
  ['prepared', 'parked'],
  ['committed', 'forwarded'],
  ['committed', 'parked'],
  ['parked', 'committed'],
  ['parked', 'rolledBack'],
];

/** States only move forward, ends are final, and a decision is made once and never another. */
function impossibleEdge(truth: TruthDatabase): Finding[] {
  const allowed = EDGES.map(([from, to]) => `('${from}', '${to}')`).join(', ');
  return find(
    truth,
    `select transaction_id as transactionId, state_from as stateFrom, state_to as stateTo,
       decision_from as decisionFrom, decision_to as decisionTo, at
     from edge
     where (state_from <> state_to and (state_from, state_to) not in (values ${allowed}))
       or (decision_from not in ('', 'none') and decision_to <> decision_from)`,
  );
}

/**
 * The barrier binds: a commit row means commit, a rollback row means rollback, and the store may
 * decide on a commit only where there is such a row. A rollback row without a transaction is
 * allowed: its prepare never came.
 */
function contradiction(truth: TruthDatabase): Finding[] {
  return find(
    truth,
    `select b.transaction_id as transactionId, b.decision as barrier, e.decision as store, e.state,
       e.decided_by as decidedBy
     from barrier b left join escrow e using (transaction_id)
     where (b.decision = 'commit' and e.decision is not 'commit')
       or (b.decision = 'rollback' and e.decision = 'commit')
     union all
     select e.transaction_id, null, e.decision, e.state, e.decided_by
     from escrow e
     left join barrier b using (transaction_id)
     where e.decision = 'commit' and b.transaction_id is null and not exists (
       select 1 from business s where s.transaction_id = e.transaction_id and s.kind = 'send')`,
  );
}

/** Accepted = forwarded + rolled back + parked + open + purged, always. */
function unaccounted(truth: TruthDatabase): Finding[] {
  const missing = find(
    truth,
    `select a.transaction_id as transactionId, 'accepted, and in no state' as problem
     from edge a left join escrow e using (transaction_id)
     where a.state_from = '' and e.transaction_id is null
     union all
     select e.transaction_id, 'in a state, and never accepted'
     from escrow e left join edge a on a.transaction_id = e.transaction_id and a.state_from = ''
     where a.transaction_id is null`,
  );
  const [purged] = find(
    truth,
    "select coalesce(sum(value), 0) as count from counter where name like 'purged%'",
  );
  // What was purged is counted and gone: it may be missing, and no more than that.
  return missing.length === Number(purged?.count ?? 0) ? [] : missing;
}

const find = (truth: TruthDatabase, sql: string): Finding[] =>
  truth.prepare(sql).all() as Finding[];

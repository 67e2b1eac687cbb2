import type { Answer } from './asker.js';

/*
 * The judge of every scenario: the truth in the database, what the checks answered and what the
 * producer told the broker must agree. It sees evidence only, and puts each disagreement into words
 * that name the mistake and its cure.
 */

/** Where the local transaction was when a check came. */
export type Moment =
  | 'before it began'
  | 'while it was open'
  /** Asked while it was open, and answered when it had ended, perhaps. */
  | 'while it was ending'
  | 'after it had ended'
  | 'while the database could not be reached';

/** A check and what was answered. */
export interface AskedCheck {
  /** Where the local transaction was. */
  moment: Moment;
  /** What the producer answered. */
  answer: Answer;
}

/** What was seen of one transaction. */
export interface TransactionEvidence {
  /** Its id, a UUID of version 7. */
  id: string;
  /** Whether a prepare of it reached the broker. */
  isStored: boolean;
  /** What the producer sent, lost ones and repeats included. */
  verdicts: readonly ('commit' | 'rollback')[];
  /** In the order in which they were asked. */
  checks: readonly AskedCheck[];
}

/** What was seen of one attempt. */
export interface Evidence {
  /** The truth: are the business rows of this attempt durable? */
  committed: boolean;
  /** Whether the producer's own code said so, by a result `{ outcome: 'committed' }`. */
  claimedCommitted: boolean;
  /** Whether the connection was cut at COMMIT. */
  isCommitCut: boolean;
  /** Those that the producer prepared in it. */
  transactions: readonly TransactionEvidence[];
}

/** @returns a sentence or two for each disagreement; none: they agree */
export function judge(evidence: Evidence): string[] {
  const { committed, claimedCommitted, transactions } = evidence;
  const stored = transactions.filter(({ isStored }) => isStored);
  const findings = stored.length > 1 ? severalIds(evidence, stored) : [];
  const [only] = stored;
  if (only !== undefined && stored.length === 1) findings.push(...oneId(evidence, only));
  if (committed && stored.length === 0) findings.push(NOT_PREPARED);
  if (claimedCommitted && !committed) {
    findings.push(
      'the call returned { outcome: "committed" }, but no row of it is durable. Return that only after the database has answered COMMIT, or after the barrier row was found.',
    );
  }
  return findings;
}

const NOT_PREPARED =
  'the local transaction committed although no prepare of it ever reached the broker: its message is lost. Wait for the answer to prepare before COMMIT, and roll back without it.';

const PLAIN_INSERT =
  'insert it with a plain INSERT whose duplicate is an error; never INSERT IGNORE, ON CONFLICT DO NOTHING or an upsert';

const OPEN =
  'check answered rollback while the local transaction was still open, and the transaction committed afterwards: its message would be lost. Answer unknown while it is open: insert the barrier row instead of looking for it, and answer unknown when that waits for a lock or fails. The local transaction must hold its own barrier row from its first statement on.';

/** What is wrong with a rollback for what committed, and the cure. */
const LOST: Record<Moment, string> = {
  'before it began': `check answered rollback before the local transaction began, and the transaction committed all the same: its message would be lost. The local transaction must write the barrier row itself, first thing, so that it fails where a check was faster: ${PLAIN_INSERT}.`,
  'while it was open': OPEN,
  'while it was ending': OPEN,
  'after it had ended': `check answered rollback although the local transaction had committed: its message would be lost. A check that finds a barrier row must answer what that row says: ${PLAIN_INSERT}, and on the duplicate read the row.`,
  'while the database could not be reached':
    'check answered rollback while it could not reach its database, and the local transaction had committed: its message would be lost. An error says nothing about the transaction: answer unknown, or a status of 500, on every error.',
};

function oneId(evidence: Evidence, transaction: TransactionEvidence): string[] {
  return [
    ...checksAgree(evidence, transaction),
    ...verdictsAgree(evidence, transaction.verdicts),
    ...answersLast(transaction),
  ];
}

function checksAgree({ committed }: Evidence, { checks }: TransactionEvidence): string[] {
  const findings = new Set<string>();
  let isOutsideKnown = false;
  for (const { moment, answer } of checks) {
    if (answer.decision === 'rollback' && committed) findings.add(LOST[moment]);
    if (answer.decision !== 'commit') continue;
    if (moment === 'before it began' || moment === 'while it was open') {
      isOutsideKnown = true;
      findings.add(OUTSIDE);
    } else if (!committed && !isOutsideKnown) {
      findings.add(NOT_ITS_OWN);
    }
  }
  return [...findings];
}

const OUTSIDE =
  'check answered commit before the local transaction had ended, which might still have rolled back: its message would be sent for something that never happened. The barrier row was written outside the local transaction: write it inside, on the same connection.';

const NOT_ITS_OWN =
  'check answered commit although the local transaction did not commit: its message would be sent for something that never happened. Write the barrier row inside the local transaction, on the same connection, so that both roll back together, and let a check answer commit only where it finds that row.';

function verdictsAgree(
  { committed, isCommitCut }: Evidence,
  verdicts: readonly ('commit' | 'rollback')[],
): string[] {
  const findings: string[] = [];
  if (committed && verdicts.includes('rollback')) {
    findings.push(
      isCommitCut
        ? 'a rollback was sent after a COMMIT that got no answer, and that COMMIT had happened: the message is lost. After an error on COMMIT nobody knows its outcome: send nothing, or decide as a check does, by inserting the barrier row as rollback.'
        : 'a rollback was sent for a local transaction that committed: the message is lost. Send rollback only where COMMIT was certainly never sent.',
    );
  }
  if (!committed && verdicts.includes('commit')) {
    findings.push(
      'a commit was sent for a local transaction that did not commit: a message goes out for something that never happened. First the database, then the message: send commit only after the database has answered COMMIT, or after the barrier row was found.',
    );
  }
  return findings;
}

const DECISIONS = ['commit', 'rollback'];

/** One decision, and the same one for ever. */
function answersLast({ checks }: TransactionEvidence): string[] {
  const decisions = checks.map(({ answer }) => answer.decision);
  const decided = decisions.filter((decision) => DECISIONS.includes(decision));
  const findings: string[] = [];
  if (new Set(decided).size > 1) {
    findings.push(
      `checks of one transaction were answered differently (${decided.join(', ')}). Once given, an answer must stay: the barrier row that a check inserts is what makes it final.`,
    );
  }
  const last = checks.at(-1)?.answer;
  if (last !== undefined && !DECISIONS.includes(last.decision)) {
    const said = last.decision === 'none' ? `no answer: ${last.why}` : last.decision;
    findings.push(
      `the local transaction had ended, but its checks were never decided (the last one: ${said}): the broker would ask until it parks the transaction. Insert the barrier row as rollback, and answer commit or rollback.`,
    );
  }
  return findings;
}

/** A producer that tried again under another id. */
function severalIds({ committed }: Evidence, stored: readonly TransactionEvidence[]): string[] {
  const sent = stored.filter(({ checks }) => checks.at(-1)?.answer.decision === 'commit').length;
  const findings = stored.flatMap(answersLast);
  if (sent === (committed ? 1 : 0)) return findings;
  return [
    ...findings,
    `one attempt prepared ${stored.length} transactions, and checks would send the messages of ${sent} of them, while the local transaction ${committed ? 'committed once' : 'did not commit'}. Choose one id per attempt and repeat a lost prepare under the same id; a check must answer by the id and not by the business row.`,
  ];
}

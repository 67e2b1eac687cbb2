import type { TruthDatabase } from './truth.js';

/** What was there to be checked. */
export interface Figures {
  accepted: number;
  forwarded: number;
  rolledBack: number;
  parked: number;
  open: number;
  /** Messages that producers have committed, and that consumers have applied. */
  committedMessages: number;
  appliedMessages: number;
  /** Transactions that a check has decided, and answers that decided nothing. */
  decidedByCheck: number;
  unknownAnswers: number;
  checksUnanswered: number;
}

const COUNTS: Record<keyof Figures, string> = {
  accepted: "select count(*) as n from edge where state_from = ''",
  forwarded: "select count(*) as n from escrow where state = 'forwarded'",
  rolledBack: "select count(*) as n from escrow where state = 'rolledBack'",
  parked: "select count(*) as n from escrow where state = 'parked'",
  open: "select count(*) as n from escrow where state in ('prepared', 'committed')",
  committedMessages: 'select count(*) as n from business',
  appliedMessages: 'select count(*) as n from effect',
  decidedByCheck: "select count(*) as n from escrow where decided_by like 'check%'",
  unknownAnswers: 'select coalesce(sum(unknown_answers), 0) as n from escrow',
  checksUnanswered:
    "select count(*) as n from history where event = 'check' and detail not like '%decision%'",
};

export function figuresOf(truth: TruthDatabase): Figures {
  const counted = Object.entries(COUNTS).map(([name, sql]) => {
    const [row] = truth.prepare(sql).all() as { n: number }[];
    return [name, Number(row?.n ?? 0)];
  });
  return Object.fromEntries(counted) as Figures;
}

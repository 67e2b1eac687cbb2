import type { Fault, FaultKind } from './nemesis/fault.js';
import type { DoneFault } from './nemesis/nemesis.js';
import { FAULTS_PER_KIND_MIN, TRANSACTIONS_PER_FAULT } from './nemesis/schedule.js';

/*
 * Did the faults bite? A soak whose faults hit nothing proves nothing, however clean it is: so a run
 * that did not reach what it was made for has failed. How often each kind must come is said of a full
 * run; shorter ones are for development.
 */

/** With a fault every 50 transactions, the first deck of all kinds is complete. */
const TRANSACTIONS_FULL = 12_000;
/** Of all accepted transactions: that a check, and not the producer, has decided. */
const CHECKED_SHARE_MIN = 0.02;

export interface Reach {
  transactions: number;
  accepted: number;
  faults: readonly DoneFault[];
  /** COMMITs of local transactions that were cut off before or after the database saw them. */
  ambiguousCommits: number;
  unknownAnswers: number;
  decidedByCheck: number;
  /** Messages that came again after they had been applied. */
  duplicates: number;
}

/** Every kind, so that one which never came is counted as well. */
const KINDS: Record<FaultKind, true> = {
  cut: true,
  blackHole: true,
  delay: true,
  throttle: true,
  cutAtCommit: true,
  killProcess: true,
  pauseProcess: true,
  killConnections: true,
  readOnly: true,
  killServer: true,
};

export function faultsByKind(faults: readonly { fault: Fault }[]): Record<FaultKind, number> {
  const counts = Object.fromEntries(Object.keys(KINDS).map((kind) => [kind, 0])) as Record<
    FaultKind,
    number
  >;
  for (const { fault } of faults) counts[fault.kind] += 1;
  return counts;
}

/** @returns what was not reached, in words; empty when the faults did bite */
export function notReached(reach: Reach): string[] {
  const { transactions, accepted, faults, decidedByCheck } = reach;
  const ofEachKind = transactions >= TRANSACTIONS_FULL ? FAULTS_PER_KIND_MIN : 0;
  const planned = Math.floor(transactions / TRANSACTIONS_PER_FAULT);
  return [
    ...(faults.length < planned ? [`${faults.length} of ${planned} faults were done`] : []),
    ...Object.entries(faultsByKind(faults))
      .filter(([, count]) => count < ofEachKind)
      .map(([kind, count]) => `${kind} came ${count} times, not ${ofEachKind}`),
    ...(reach.ambiguousCommits === 0 ? ['no COMMIT was cut off'] : []),
    ...(reach.unknownAnswers === 0 ? ['no check was answered with unknown'] : []),
    ...(reach.duplicates === 0 ? ['no message came twice'] : []),
    ...(decidedByCheck < accepted * CHECKED_SHARE_MIN
      ? [`checks decided ${decidedByCheck} of ${accepted} transactions`]
      : []),
  ];
}

import type { CheckName, Finding } from './checker.js';
import type { Figures } from './figures.js';
import type { Flags } from './flags.js';
import type { DoneFault } from './nemesis/nemesis.js';
import { faultsByKind, notReached } from './reach.js';
import type { Versions } from './versions.js';
import { PRODUCERS } from './world/names.js';
import type { Tally } from './world/tally.js';

/* What a run says of itself: lines for people on standard error, one line of JSON on standard output. */

/** What was done, and what the parties were told. */
export interface RunRecord {
  flags: Flags;
  versions: Versions;
  faults: readonly DoneFault[];
  tally: Tally;
  unexpectedExits: string[];
  seconds: number;
  rate: number;
  calmAfterMs: number | undefined;
}

export interface Judgement {
  findings: Record<CheckName, Finding[]>;
  figures: Figures;
  /** What the run was made for and did not reach. */
  missed: string[];
  verdict: 'clean' | 'broken' | 'the faults did not bite';
}

export function judge(
  { flags, faults, tally }: RunRecord,
  { findings, figures }: Pick<Judgement, 'findings' | 'figures'>,
): Judgement {
  const { transactions, calm } = flags;
  const { duplicates } = tally;
  const ambiguousCommits = ambiguousIn(tally);
  const missed = calm
    ? []
    : notReached({ transactions, faults, duplicates, ambiguousCommits, ...figures });
  const isBroken = Object.values(findings).some((found) => found.length > 0);
  const verdict = isBroken ? 'broken' : missed.length > 0 ? 'the faults did not bite' : 'clean';
  return { findings, figures, missed, verdict };
}

/** COMMITs of local transactions that were cut off: their client can't know what became of them. */
const ambiguousIn = ({ struck }: Tally): number =>
  PRODUCERS.reduce((sum, name) => sum + (struck[`${name}>database`] ?? 0), 0);

function serverKillsIn(faults: readonly DoneFault[]): Record<string, number> {
  const kills: Record<string, number> = { store: 0, services: 0, rabbitmq: 0 };
  for (const { fault } of faults) {
    if (fault.kind === 'killServer') kills[fault.server] = (kills[fault.server] ?? 0) + 1;
  }
  return kills;
}

/** The first few are enough to see what kind of thing it is; the folder has all. */
const FINDINGS_SHOWN_MAX = 5;

export function tell({ findings, missed, verdict }: Judgement): void {
  for (const [name, found] of Object.entries(findings)) {
    if (found.length > 0) say(`${name}: ${found.length}`);
    for (const finding of found.slice(0, FINDINGS_SHOWN_MAX)) say(`  ${JSON.stringify(finding)}`);
  }
  for (const lack of missed) say(`not reached: ${lack}`);
  say(verdict);
}

/** The whole run as one line of JSON. */
export function lineOf(record: RunRecord, judgement: Judgement): string {
  const { flags, versions, faults, tally, unexpectedExits, seconds, rate, calmAfterMs } = record;
  const { findings, figures, missed, verdict } = judgement;
  const checks = Object.entries(findings).map(([name, found]) => [name, found.length]);
  return JSON.stringify({
    seed: flags.seed,
    transactions: flags.transactions,
    restarts: flags.restarts,
    versions,
    counts: figures,
    outcomes: tally.outcomes,
    faults: { total: faults.length, ...faultsByKind(faults) },
    serverKills: serverKillsIn(faults),
    ambiguousCommits: ambiguousIn(tally),
    cutAtMoment: tally.struck,
    duplicates: tally.duplicates,
    unexpectedExits,
    checks: Object.fromEntries(checks),
    notReached: missed,
    rate,
    seconds: Math.round(seconds),
    calmAfterMs: calmAfterMs ?? null,
    verdict,
  });
}

export const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

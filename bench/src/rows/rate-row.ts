import type { Run } from '../measure/load-process.js';
import type { Contended } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { Goal, Row, SkippedRow } from '../report/row.js';

interface What {
  id: string;
  title: string;
  notes?: string[];
}

/** Operations a second, and how they compare with those of `of.contended`, the first contender. */
export function rateRow(
  what: What,
  contended: Contended,
  of?: { words: string; goal?: Goal },
): Row {
  return {
    ...what,
    unit: '/s',
    value: contended.perSecond,
    ...(of === undefined ? {} : { ratio: { ...of.goal, of: of.words, value: contended.ratio } }),
    notes: [...(what.notes ?? []), ...cpuNote(contended.runs)],
    runs: contended.runs,
  };
}

/** One figure of each run: a latency, or CPU time. */
export function figureRow(
  what: What & { unit: string; goal?: Goal },
  runs: Run[],
  figure: (run: Run, round: number) => number | undefined,
): Row | SkippedRow {
  const { id, title, unit, goal, notes = [] } = what;
  const values = runs.map(figure).filter((value) => value !== undefined);
  if (values.length < runs.length) {
    return { id, title, skipped: 'this system does not tell the CPU time of its processes' };
  }
  const value = summarize(values);
  return { id, title, unit, value, ...(goal === undefined ? {} : { goal }), notes, runs };
}

/** "CPU µs per operation: broker 25, rabbitmq 60". */
function cpuNote(runs: readonly Run[]): string[] {
  const names = Object.keys(runs[0]?.cpuMicrosPerOperation ?? {});
  if (names.length === 0) return [];
  const parts = names.map((name) => {
    const micros = summarize(runs.map((run) => run.cpuMicrosPerOperation[name] ?? 0)).median;
    return `${name} ${micros.toFixed(0)}`;
  });
  return [`CPU µs per operation: ${parts.join(', ')}`];
}

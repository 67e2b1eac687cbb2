import type { Run } from '../measure/load-process.js';
import type { Row, SkippedRow } from '../report/row.js';
import { figureRow } from './rate-row.js';

/** Milliseconds, of the step's quantile in one run. */
export function latencyOf(run: Run, step: string, quantile: 'p50' | 'p99'): number {
  const found = run.latencyMs[step];
  if (found === undefined) throw new Error(`the load did not measure "${step}"`);
  return found[quantile];
}

/** How long prepare and commit take, from the runs that also gave the throughput. */
export function latencyRows(runs: Run[], where: string): (Row | SkippedRow)[] {
  const of = `SDK on MariaDB, ${where}`;
  return [
    figureRow(
      {
        id: 'prepare-p50-64',
        title: `Prepare p50, ${of}`,
        unit: 'ms',
        goal: { must: 3, better: 'lower' },
      },
      runs,
      (run) => latencyOf(run, 'prepare', 'p50'),
    ),
    figureRow(
      {
        id: 'prepare-p99-64',
        title: `Prepare p99, ${of}`,
        unit: 'ms',
        goal: { must: 15, better: 'lower' },
      },
      runs,
      (run) => latencyOf(run, 'prepare', 'p99'),
    ),
    figureRow(
      {
        id: 'commit-beyond-prepare-p50-64',
        title: `Commit p50 less prepare p50, ${of}`,
        unit: 'ms',
        goal: { must: 1, better: 'lower' },
      },
      runs,
      (run) => latencyOf(run, 'commit', 'p50') - latencyOf(run, 'prepare', 'p50'),
    ),
  ];
}

/** What one transaction costs the broker's process, from the runs that also gave the throughput. */
export function brokerCpuRows(
  runs: { sdk: Run[]; http: Run[] },
  where: string,
): (Row | SkippedRow)[] {
  const row = (way: 'sdk' | 'http', title: string, goal: { must: number; aim: number }) =>
    figureRow(
      {
        id: `broker-cpu-${way}`,
        title: `CPU of the broker per transaction, ${title} on MariaDB, ${where}`,
        unit: 'µs',
        goal: { ...goal, better: 'lower' },
      },
      runs[way],
      (run) => run.cpuMicrosPerOperation.broker,
    );
  return [
    row('sdk', 'SDK', { must: 40, aim: 25 }),
    row('http', 'HTTP per call', { must: 110, aim: 80 }),
  ];
}

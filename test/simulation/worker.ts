import { parseArgs } from 'node:util';
import { MISTAKE_NAMES, type Mistakes, NO_MISTAKES } from './mistakes.js';
import { installVirtualTime, real } from './virtual-time.js';
import { simulate } from './world.js';

/*
 * One process of a simulation: runs seeds and prints one line of JSON. run.mjs starts these and reads
 * that line; with `--trace` every step is a line of text before it.
 */
const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    runs: { type: 'string', default: '1' },
    /** From one seed to the next, so that two processes share a row of seeds. */
    stride: { type: 'string', default: '1' },
    plant: { type: 'string' },
    trace: { type: 'boolean', default: false },
    /** Goes on after a seed that failed. */
    all: { type: 'boolean', default: false },
  },
});

export interface WorkerReport {
  runs: number;
  steps: number;
  faults: number;
  seconds: number;
  failures: { seed: number; violations: string[]; faults: string[] }[];
  /** Of the first runs: enough to see that two processes did the same. */
  fingerprints: string[];
}

const FINGERPRINTS_MAX = 20;

function planted(name: string | undefined): Mistakes {
  if (name === undefined) return NO_MISTAKES;
  const known = MISTAKE_NAMES.find((one) => one === name);
  if (known === undefined) throw new Error(`--plant takes one of ${MISTAKE_NAMES.join(', ')}`);
  return { ...NO_MISTAKES, [known]: true };
}

async function runAll(): Promise<WorkerReport> {
  const mistakes = planted(values.plant);
  const problems: string[] = [];
  process.on('unhandledRejection', (reason) => problems.push(`unhandled rejection: ${reason}`));
  const report: WorkerReport = {
    runs: 0,
    steps: 0,
    faults: 0,
    seconds: 0,
    failures: [],
    fingerprints: [],
  };
  const startedAt = real.performanceNow();
  while (report.runs < Number(values.runs)) {
    const seed = Number(values.seed) + report.runs * Number(values.stride);
    const { steps, faults, fingerprint, trace, ...result } = await simulate({
      seed,
      mistakes,
      isTraced: values.trace,
    });
    for (const line of trace) process.stdout.write(`${line}\n`);
    const violations = [...result.violations, ...problems.splice(0)];
    if (violations.length > 0) report.failures.push({ seed, violations, faults });
    if (report.fingerprints.length < FINGERPRINTS_MAX) report.fingerprints.push(fingerprint);
    report.runs += 1;
    report.steps += steps;
    report.faults += faults.length;
    if (violations.length > 0 && !values.all) break;
  }
  report.seconds = (real.performanceNow() - startedAt) / 1000;
  return report;
}

// The stacks of errors that nobody reads took a third of the time.
if (!values.trace) Error.stackTraceLimit = 0;
installVirtualTime();
const report = await runAll();
// Timers of the last run are nobody's, so nothing keeps this process.
process.stdout.write(`${JSON.stringify(report)}\n`);

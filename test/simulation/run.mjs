import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { setUp } from '../../scripts/setup.mjs';

/*
 * npm run simulate                              10,000 runs from a seed of the day
 * npm run simulate -- --runs N --seed S         N runs, of the seeds from S on
 * npm run simulate -- --seed S --trace          that one run, a line for each step
 * npm run simulate -- --plant <mistake>         with a mistake that must be found: mistakes.ts has them
 *
 * Two processes share the seeds, as many as the smallest machine has cores. Exits with 1, and names the
 * seed, when something that must hold did not.
 */
const PROCESSES = 2;
const RUNS_DEFAULT = 10_000;
const DAY_MS = 24 * 60 * 60 * 1000;
/** Far enough apart that the seeds of two days never meet. */
const SEEDS_PER_DAY = 10_000_000;

/**
 * What is new fits into the cache of a core, and the two processes have no core to spare for threads
 * that sweep. Against 64 MB and threads that takes 7 to 13 % less of a core.
 */
const SMALL_MEMORY = ['--max-semi-space-size=8', '--single-threaded-gc'];

const HERE = fileURLToPath(new URL('.', import.meta.url));

const { values } = parseArgs({
  options: {
    runs: { type: 'string' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    plant: { type: 'string' },
  },
});

await setUp();
await main();

async function main() {
  const { trace, plant } = values;
  const runs = Number(values.runs ?? (trace ? 1 : RUNS_DEFAULT));
  const seed = Number(values.seed ?? Math.floor(Date.now() / DAY_MS) * SEEDS_PER_DAY);
  const processes = Math.min(PROCESSES, runs);
  const startedAt = performance.now();
  const reports = await Promise.all(
    Array.from({ length: processes }, (_, place) =>
      runWorker([
        `--seed=${seed + place}`,
        `--stride=${processes}`,
        `--runs=${Math.ceil((runs - place) / processes)}`,
        ...(trace ? ['--trace'] : []),
        ...(plant === undefined ? [] : [`--plant=${plant}`]),
      ]),
    ),
  );
  const seconds = (performance.now() - startedAt) / 1000;
  const sum = (field) => reports.reduce((total, report) => total + report[field], 0);
  const failures = reports.flatMap((report) => report.failures);
  for (const { seed: failed, violations, faults } of failures) {
    process.stdout.write(`\nseed ${failed} broke what must hold:\n`);
    for (const violation of violations) process.stdout.write(`  ${violation}\n`);
    process.stdout.write(`  after: ${faults.join('; ') || 'no fault'}\n`);
    const planted = plant === undefined ? '' : ` --plant ${plant}`;
    process.stdout.write(`  again: npm run simulate -- --seed ${failed} --trace${planted}\n`);
  }
  process.stdout.write(
    `\n${sum('runs')} runs from seed ${seed}, ${sum('steps')} steps, ${sum('faults')} faults, ` +
      `${seconds.toFixed(1)} s, ${failures.length} failed\n`,
  );
  process.exitCode = failures.length === 0 ? 0 : 1;
}

/** Its last line is its report; what comes before are traces. */
async function runWorker(args) {
  const worker = spawn(
    process.execPath,
    [...SMALL_MEMORY, `--import=${HERE}register.mjs`, `${HERE}worker.ts`, ...args],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const exited = once(worker, 'exit');
  let last;
  for await (const line of createInterface(worker.stdout)) {
    if (last !== undefined) process.stdout.write(`${last}\n`);
    last = line;
  }
  const [code] = await exited;
  if (code !== 0 || last === undefined) throw new Error(`a worker ended with exit code ${code}`);
  return JSON.parse(last);
}

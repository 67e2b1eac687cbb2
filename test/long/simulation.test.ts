import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { beforeEach, describe, expect, test } from '@jest/globals';
import type { Store } from '../../broker/src/domain/ports.js';
import { statesContract } from '../contract/states.contract.js';
import { createMemoryStore } from '../simulation/memory-store.js';
import { MISTAKE_NAMES } from '../simulation/mistakes.js';
import type { WorkerReport } from '../simulation/worker.js';
import type { OpenStore } from '../support/store-fixtures.js';

const HERE = fileURLToPath(new URL('../simulation/', import.meta.url));
const run = promisify(execFile);

/** In a process of its own, because its time is virtual. Its last line is its report. */
async function simulation(...args: string[]): Promise<{ report: WorkerReport; trace: string[] }> {
  const { stdout } = await run(
    process.execPath,
    [`--import=${HERE}register.mjs`, `${HERE}worker.ts`, ...args],
    { maxBuffer: 64 * 1024 * 1024 },
  );
  const lines = stdout.trimEnd().split('\n');
  const report = JSON.parse(lines.at(-1) ?? '') as WorkerReport;
  return { report, trace: lines.slice(0, -1) };
}

test('a thousand runs with faults break nothing', async () => {
  const { report } = await simulation('--seed=1', '--runs=1000');
  expect(report.failures).toEqual([]);
  expect(report.runs).toBe(1000);
  // Else the runs would prove nothing: neither orders nor faults were tried.
  expect(report.faults).toBeGreaterThan(1000);
  expect(report.steps).toBeGreaterThan(50_000);
});

test('a run is a function of its seed, in any process and after any other run', async () => {
  const [first, second, alone] = await Promise.all([
    simulation('--seed=100', '--runs=20', '--trace'),
    simulation('--seed=100', '--runs=20', '--trace'),
    simulation('--seed=119', '--runs=1', '--trace'),
  ]);
  expect(first.trace.length).toBeGreaterThan(500);
  expect(second.trace).toEqual(first.trace);
  expect(second.report.fingerprints).toEqual(first.report.fingerprints);
  expect(first.trace.slice(-alone.trace.length)).toEqual(alone.trace);
  expect(first.report.fingerprints.at(-1)).toBe(alone.report.fingerprints[0]);
  expect(new Set(first.report.fingerprints).size).toBe(20);
});

describe('a planted mistake is found within a thousand runs, and its seed shows it again', () => {
  test.each(MISTAKE_NAMES)('%s', async (mistake) => {
    const { report } = await simulation('--seed=1', '--runs=1000', `--plant=${mistake}`);
    const [failure] = report.failures;
    const again = await simulation(`--seed=${failure?.seed}`, `--plant=${mistake}`);
    expect(failure?.violations).not.toEqual([]);
    expect(again.report.failures).toEqual([failure]);
    // The very same seed is a good run of the right design.
    const right = await simulation(`--seed=${failure?.seed}`);
    expect(right.report.failures).toEqual([]);
  });
});

describe('the store in memory', () => {
  let store: Store;
  beforeEach(() => {
    store = asStore();
  });
  statesContract(() => ({ store }) as OpenStore);
});

/** Its operations answer at once; callers of a store wait. */
function asStore(): Store {
  const memory = createMemoryStore({ now: () => Date.now(), groups: [] });
  const operations = Object.entries(memory).map(([name, operation]) => [
    name,
    typeof operation === 'function'
      ? async (...given: never[]) => (operation as (...given: never[]) => unknown)(...given)
      : operation,
  ]);
  return {
    ...Object.fromEntries(operations),
    // What the contract asks a view for.
    async view(id: string) {
      const state = memory.rows.get(id)?.state;
      return state !== undefined && 'reason' in state ? { parkedReason: state.reason } : {};
    },
  } as Store;
}

import { runJest } from './jest.mjs';
import { setUp } from './setup.mjs';

/*
 * npm test            everything but the long tests
 * npm run test:all    everything
 * npm test -- <…>     the rest goes to jest: paths, --testNamePattern, --watch
 *
 * Long is what lies in test/faults and test/long, and nothing else. Naming a path in there runs it as
 * well.
 */

const LONG_FOLDERS = /test\/(faults|long)/;
const SHORT_PROJECTS = ['unit', 'servers'];
/**
 * One more than the smallest machine has cores, as short tests wait for a third of their time. Long
 * ones keep both cores busy by themselves.
 */
const SHORT_WORKERS = '--maxWorkers=3';
const NAMES_WORKERS = /^(--maxWorkers|-w|--runInBand|-i)/;

const args = process.argv.slice(2).filter((arg) => arg !== '--all');
const long =
  process.argv.includes('--all') ||
  args.some((arg) => LONG_FOLDERS.test(arg) || arg === '--selectProjects');

await setUp({ forTests: true });

runJest([
  ...(long || args.some((arg) => NAMES_WORKERS.test(arg)) ? [] : [SHORT_WORKERS]),
  ...args,
  // Last, as it takes every argument after it for a project.
  ...(long ? [] : ['--selectProjects', ...SHORT_PROJECTS]),
]);

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ROOT, setUp } from './setup.mjs';

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

await setUp();

const jest = spawn(
  process.execPath,
  [
    '--experimental-vm-modules',
    // Jest runs ES modules by a Node feature that warns about itself once for every worker.
    '--disable-warning=ExperimentalWarning',
    join('node_modules', 'jest', 'bin', 'jest.js'),
    ...(long || args.some((arg) => NAMES_WORKERS.test(arg)) ? [] : [SHORT_WORKERS]),
    ...args,
    // Last, as it takes every argument after it for a project.
    ...(long ? [] : ['--selectProjects', ...SHORT_PROJECTS]),
  ],
  { cwd: ROOT, stdio: 'inherit' },
);
// A terminal sends Ctrl-C to jest as well: what is left to do here is to wait for its end.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.on(signal, () => {
    if (signal !== 'SIGINT') jest.kill(signal);
  });
}
jest.once('exit', (code, signal) => {
  process.exitCode = signal === null ? code : 1;
});

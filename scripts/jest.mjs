import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './setup.mjs';

/** Runs jest with these arguments, and ends as jest does. */
export function runJest(args) {
  const command = [
    process.execPath,
    '--experimental-vm-modules',
    // Jest runs ES modules by a Node feature that warns about itself once for every worker.
    '--disable-warning=ExperimentalWarning',
    join('node_modules', 'jest', 'bin', 'jest.js'),
    ...args,
  ];
  endAs(command, { cwd: ROOT });
}

/** Runs a command in this process's place: ends with its exit code, and not before it. */
export function endAs([program, ...args], options) {
  const child = spawn(program, args, { ...options, stdio: 'inherit' });
  // A terminal sends Ctrl-C to the child as well: what is left to do here is to wait for its end.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
    process.on(signal, () => {
      if (signal !== 'SIGINT') child.kill(signal);
    });
  }
  child.once('exit', (code, signal) => {
    process.exitCode = signal === null ? code : 1;
  });
}

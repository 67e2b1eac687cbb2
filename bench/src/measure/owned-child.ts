import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';

/*
 * Processes that end with this one: killed when it exits, which Ctrl-C leads to as well. After a
 * SIGKILL of this process nothing here runs any more: loads then end by themselves (their standard
 * input closes before `go`, and their time is limited after it), and brokers by die-with-parent.ts.
 */

const owned = new Set<ChildProcess>();

process.on('exit', () => {
  for (const child of owned) child.kill('SIGKILL');
});

/** `spawn`, for a process that must not outlive this one. */
export function spawnOwned(
  command: readonly [string, ...string[]],
  options: SpawnOptions,
): ChildProcess {
  const [file, ...args] = command;
  const child = spawn(file, args, options);
  owned.add(child);
  child.once('exit', () => owned.delete(child));
  child.once('error', () => owned.delete(child));
  return child;
}

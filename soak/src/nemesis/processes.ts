import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import type { World } from '../world/world.js';
import type { Fault } from './fault.js';

/* Faults of processes. A process that was killed is started again, as a supervisor would. */

type ProcessFault = Extract<Fault, { process: unknown }>;

/** A start takes a second or two; one that waits for a server that is down is not waited for. */
const READY_MS_MAX = 5_000;

export async function doToProcess(world: World, fault: ProcessFault): Promise<void> {
  const child = world.processes[fault.process];
  switch (fault.kind) {
    case 'killProcess':
      await child.kill();
      await pause(fault.ms);
      child.start();
      world.greet(fault.process);
      await Promise.race([child.ready(), pause(READY_MS_MAX)]);
      return;
    case 'pauseProcess':
      // Its sockets stay open, its leases run out, and then it goes on as if nothing had been.
      await stopFor(child.pid(), fault.ms);
      return;
  }
}

/** Done by a shell of its own, which lets the process go on whatever becomes of the soak meanwhile. */
async function stopFor(pid: number | undefined, ms: number): Promise<void> {
  if (pid === undefined) return;
  const script = 'kill -s STOP "$0" && sleep "$1"; kill -s CONT "$0"';
  const shell = spawn('sh', ['-c', script, String(pid), String(ms / 1000)], {
    detached: true,
    stdio: 'ignore',
  });
  await once(shell, 'exit');
}

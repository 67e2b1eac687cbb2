import { spawnOwned } from '../measure/owned-child.js';

/*
 * Servers that stand still while others are measured: an idle RocketMQ uses 11 % of a core, and one
 * that is started anew for each of its turns must be warmed up for 20 s.
 *
 * A process that is stopped does not notice that the bench is gone. So a shell waits for that, and
 * wakes it: then it ends as it would have without this.
 */

const WAKE_AFTER_PARENT = 'read -r line; kill -CONT "$@"';

export interface Pausable {
  pause(): void;
  resume(): void;
  /** To be called before the processes end: their ids may be another's then. */
  end(): void;
}

/** @param pids of processes that end with the bench, and that run now */
export function pausable(pids: readonly number[]): Pausable {
  const waker = spawnOwned(['sh', '-c', WAKE_AFTER_PARENT, 'sh', ...pids.map(String)], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  const signal = (name: 'SIGSTOP' | 'SIGCONT') => {
    for (const pid of pids) process.kill(pid, name);
  };
  return {
    pause: () => signal('SIGSTOP'),
    resume: () => signal('SIGCONT'),
    end: () => void waker.kill('SIGKILL'),
  };
}

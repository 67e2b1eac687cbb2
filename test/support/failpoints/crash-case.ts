import type { ChildProcess } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { until } from '../until.js';

/** As failpoint.mjs does it: SIGKILL, SIGSTOP until it is told to go on, or an error. */
export type Action = 'kill' | 'stop' | 'throw';

/** Longer than a lease is under failpoints, and than every limit of a call. */
const STOPPED_MS = 5_000;
/** A point is reached within a second; the machine may have other things to do. */
const REACHED_MS_MAX = 60_000;

const REGISTER = new URL('./register.mjs', import.meta.url).href;
/** For `node` itself: what lets the hooks in. */
const WITH_FAILPOINTS = ['--import', REGISTER];
export const pathOf = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** What a process does at one point, once, however often it is started. */
export interface Failpoint {
  /** For its environment. */
  environment: Record<string, string>;
  /** From now on the point counts. */
  arm(): Promise<void>;
  /** Resolves when the process has done what it was to do, and is over it. */
  endured(process: Enduring): Promise<void>;
  remove(): Promise<void>;
}

export interface Enduring {
  child(): ChildProcess;
  /** Absent when nobody starts it again. */
  restart?(): Promise<void>;
  /** What goes on without it while it stands still. */
  standIn?(): Promise<void>;
}

export async function openFailpoint(
  point: string,
  action: Action,
  time: number,
): Promise<Failpoint> {
  const folder = await mkdtemp(join(tmpdir(), 'escrow-failpoint-'));
  const isReached = () => existsSync(join(folder, 'reached'));
  return {
    environment: {
      ESCROW_TEST_FAILPOINT: JSON.stringify({ point, action, time, folder }),
      NODE_OPTIONS: WITH_FAILPOINTS.join(' '),
    },
    arm: () => writeFile(join(folder, 'armed'), ''),
    async endured({ child, restart, standIn }) {
      await until(`${point} is reached`, isReached, REACHED_MS_MAX);
      if (action === 'stop') {
        await Promise.all([pause(STOPPED_MS), standIn?.()]);
        child().kill('SIGCONT');
      }
      if (action === 'kill') {
        await until('it is dead', () => hasEnded(child()));
        await restart?.();
      }
    },
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

export const hasEnded = ({ exitCode, signalCode }: ChildProcess) =>
  exitCode !== null || signalCode !== null;

/** Runs work of which so much may be under way at a time. */
export function atMost(count: number): <T>(work: () => Promise<T>) => Promise<T> {
  let free = count;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free === 0) await new Promise<void>((resolve) => waiting.push(resolve));
    else free -= 1;
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free += 1;
      else next();
    }
  };
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/*
 * A process of the system under test: it can be killed, stopped, continued and started again, and
 * it ends with this process, however that ends.
 */

const DIE_WITH_PARENT = new URL('../services/die-with-parent.js', import.meta.url);

/** A process that ends by itself is started again, as a supervisor would; not in a tight loop. */
const RESTART_PAUSE_MS = 300;

/** Producers and consumers close in 10 s or sooner, brokers as well. */
const STOP_MS_MAX = 30_000;

export interface ChildOptions {
  name: string;
  /** Options of Node, the program and its arguments. */
  command: readonly string[];
  env: Record<string, string>;
  /** File that gets standard output and error, appended to. */
  log: string;
  /** Messages that it sends. */
  onMessage?: (message: unknown) => void;
}

export interface Child {
  readonly name: string;
  /** Times it ended by itself, with a code or signal nobody sent. */
  readonly unexpectedExits: () => string[];
  /** To the process that runs now; dropped when none does. */
  send(message: object): void;
  /** Resolves when the process that runs then says `{ ready: true }` or has ended. */
  ready(): Promise<void>;
  signal(signal: NodeJS.Signals): void;
  /** Of the process that runs now; undefined when none could be started. */
  pid(): number | undefined;
  /** SIGKILL; resolves when it is dead. It stays dead until `start`. */
  kill(): Promise<void>;
  /** SIGTERM, and SIGKILL for one that takes too long. It stays ended. */
  stop(): Promise<void>;
  start(): void;
}

/** Nothing notices its parent's end while it is stopped, so it is killed where that can be done. */
const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/** Starts it. */
export function startChild(options: ChildOptions): Child {
  const unexpectedExits: string[] = [];
  let child: ChildProcess | undefined;
  let isWanted = true;
  let markReady = () => {};
  let ready = Promise.resolve();

  function start(): void {
    isWanted = true;
    const log = openSync(options.log, 'a');
    const started = spawn(
      process.execPath,
      ['--import', DIE_WITH_PARENT.href, ...options.command],
      { env: options.env, stdio: ['ignore', log, log, 'ipc'] },
    );
    closeSync(log);
    child = started;
    running.add(started);
    ready = new Promise((resolve) => {
      markReady = resolve;
    });
    started.on('message', (message) => {
      if (typeof message === 'object' && message !== null && 'ready' in message) markReady();
      options.onMessage?.(message);
    });
    // A message to a process that has just died; its exit is what counts.
    started.on('error', () => {});
    started.once('exit', (code, signal) => {
      running.delete(started);
      markReady();
      if (!isWanted || child !== started) return;
      unexpectedExits.push(`${options.name} ended with ${signal ?? code}`);
      void pause(RESTART_PAUSE_MS).then(() => {
        if (isWanted && child === started) start();
      });
    });
  }

  async function end(signal: NodeJS.Signals): Promise<void> {
    isWanted = false;
    const current = child;
    if (current === undefined || hasEnded(current)) return;
    const exited = once(current, 'exit');
    current.kill(signal);
    await exited;
  }

  start();
  return {
    name: options.name,
    unexpectedExits: () => [...unexpectedExits],
    send(message) {
      if (child?.connected) child.send(message, () => {});
    },
    ready: () => ready,
    signal: (signal) => void child?.kill(signal),
    pid: () => child?.pid,
    kill: () => end('SIGKILL'),
    async stop() {
      const late = setTimeout(() => child?.kill('SIGKILL'), STOP_MS_MAX);
      await end('SIGTERM');
      clearTimeout(late);
    },
    start,
  };
}

const hasEnded = (child: ChildProcess) => child.exitCode !== null || child.signalCode !== null;

/** A program of this workspace. */
export const programAt = (path: string): string =>
  fileURLToPath(new URL(`../${path}`, import.meta.url));

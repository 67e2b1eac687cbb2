import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { within } from './wait-for.js';

export interface ChildOptions {
  /** For sentences: "the broker", "producer 2". */
  name: string;
  /** The compiled module to run. */
  module: URL;
  /** File that gets standard output and error; appended to. */
  log: string;
  env?: Record<string, string>;
}

/** A process of the demo. It ends with the demo at the latest. */
export interface Child {
  readonly name: string;
  /** Tells the process something. */
  send(message: object): void;
  /** Is called with everything that the process tells. */
  onMessage(listener: (message: unknown) => void): void;
  /** SIGSTOP: it stands still, and keeps its connections. */
  pause(): void;
  /** SIGCONT. */
  resume(): void;
  /** SIGKILL; resolves when it is dead. */
  kill(): Promise<void>;
  /** SIGTERM; resolves when it has ended in order. @throws Error when it does not */
  stop(): Promise<void>;
  /** Rejects when the process ends and nobody asked it to; never resolves. */
  readonly died: Promise<never>;
}

/** The broker's own limit for its shutdown is 10 s, a consumer's 30 s. */
const STOP_MS_MAX = 40_000;

const DIE_WITH_PARENT = new URL('./die-with-parent.js', import.meta.url);

export function startChild({ name, module, log, env = {} }: ChildOptions): Child {
  const output = openSync(log, 'a');
  const child: ChildProcess = fork(fileURLToPath(module), [], {
    execArgv: ['--import', DIE_WITH_PARENT.href],
    // Nothing of this process's ESCROW_ variables: they would configure the wrong broker.
    env: { PATH: process.env.PATH, HOME: process.env.HOME, ...env },
    stdio: ['ignore', output, output, 'ipc'],
    // Ctrl-C goes to the demo alone, which ends its processes in order.
    detached: true,
  });
  closeSync(output);

  let isEndWanted = false;
  // Rejects when the process could not even be started.
  const exited = once(child, 'exit');
  const died = exited.then(([code, signal]) => {
    if (isEndWanted) return new Promise<never>(() => {});
    throw new Error(`${name} ended by itself (${ending(code, signal)})${lastLines(log)}`);
  });
  // Whoever is interested races against it; nobody has to be.
  died.catch(() => {});

  async function end(signal: NodeJS.Signals): Promise<void> {
    isEndWanted = true;
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill(signal);
    await exited;
  }

  return {
    name,
    died,
    // One that is dead can't be told anything; `died` says so already.
    send: (message) => void child.send(message, () => {}),
    onMessage: (listener) => void child.on('message', listener),
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    kill: () => end('SIGKILL'),
    async stop() {
      try {
        await within(`${name} to end after SIGTERM`, STOP_MS_MAX, end('SIGTERM'));
      } finally {
        await end('SIGKILL');
      }
      if (child.exitCode === 0) return;
      const { exitCode, signalCode } = child;
      throw new Error(
        `${name} did not end in order (${ending(exitCode, signalCode)})${lastLines(log)}`,
      );
    },
  };
}

const ending = (code: unknown, signal: unknown) => String(signal ?? `exit code ${code}`);

/** Enough for an error with its stack. The folder is deleted when the demo ends. */
const LOG_CHARS_SHOWN = 1_500;

function lastLines(log: string): string {
  const text = readFileSync(log, 'utf8').slice(-LOG_CHARS_SHOWN).trim();
  return text === '' ? '' : `; the end of its log:\n${text}`;
}

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdirSync, openSync, readFileSync, rmSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Command, inRoot } from './in-root.js';

/*
 * A lifeline is a private folder and the processes started in it, none of which outlives this
 * process: not after a normal end, not after Ctrl-C, not after SIGKILL.
 *
 * An exit hook could not promise that, since nothing runs in a process that was killed. So each
 * folder has a watcher: a small shell in a session of its own, blocked on a pipe whose other end
 * only this process holds. The kernel closes that end however we die; the watcher then kills every
 * process group of the folder and deletes it. `close()` cleans up by closing the pipe as well, so
 * the path taken after a crash is the one taken every day.
 *
 * Every process is started in a process group of its own, through a shell that first writes its
 * group down as an empty file in `groups/` and then becomes the server. Writing down comes first
 * and is a single step: the watcher begins by renaming `groups/`, so a process that is just being
 * started is either in the list that gets killed, or fails to write and never becomes a server.
 *
 * Not covered: SIGKILL of the watcher itself, and a machine that loses its power.
 */

const WATCHER_SCRIPT = `
dir=$1
while read -r _; do :; done
mv "$dir/groups" "$dir/closed"
for file in "$dir"/closed/*; do
  [ -e "$file" ] && kill -s KILL -- "-\${file##*/}" 2>/dev/null
done
# A dying server may still be creating files: a second pass gets what the first one missed.
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  rm -rf "$dir" 2>/dev/null && exit 0
  sleep 0.2
done
exit 1
`;

const ENTRY_SCRIPT = `: >"$0/$$" && exec "$@"`;

/** Enough for a start-up failure with its stack, short enough for an error message. */
const LOG_TAIL_CHARS = 3_000;

/** `env` is the whole environment of the process, nothing is inherited beside it. */
export interface ProcessOptions extends Command {
  /** The folder that is `/` to the process. @default the machine's own */
  root?: string | undefined;
  /** Name of the file in the private folder that gets standard output and error. */
  log: string;
}

/** One server process and its process group. */
export class ServerProcess {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #logFile: string;
  readonly #exited: Promise<void>;

  constructor(child: ChildProcess, logFile: string, onExit: () => void) {
    if (child.pid === undefined) throw new Error(`${child.spawnfile} could not be started`);
    this.pid = child.pid;
    this.#child = child;
    this.#logFile = logFile;
    this.#exited = new Promise((resolve) => {
      child.once('exit', () => {
        // The leader is gone; helpers of its group (Erlang's port programs) may not be.
        this.#signalGroup('SIGKILL');
        onExit();
        resolve();
      });
    });
    // A server alone must not keep the caller's process alive.
    child.unref();
  }

  get running(): boolean {
    return this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The end of what the process printed, for error messages. */
  logTail(): string {
    return readFileSync(this.#logFile, 'utf8').slice(-LOG_TAIL_CHARS).trim();
  }

  /** Waits for a process that ends by itself; SIGKILL when it takes longer than `deadlineMs`.
   * @returns its exit code, null after a signal */
  async ended(deadlineMs: number): Promise<number | null> {
    const timer = setTimeout(() => this.#signalGroup('SIGKILL'), deadlineMs);
    await this.#waitForExit();
    clearTimeout(timer);
    return this.#child.exitCode;
  }

  /** SIGKILL to the whole process group; resolves when the leader is gone. */
  async kill(): Promise<void> {
    this.#signalGroup('SIGKILL');
    await this.#waitForExit();
  }

  /**
   * A signal to the leader, and SIGKILL to the group when it is not gone after `graceMs`.
   * @param signal what this server takes for a request to stop
   */
  async terminate(graceMs: number, signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.running) process.kill(this.pid, signal);
    await this.ended(graceMs);
  }

  async #waitForExit(): Promise<void> {
    // While somebody waits, the event loop must stay alive until the exit is seen.
    this.#child.ref();
    await this.#exited;
    this.#child.unref();
  }

  #signalGroup(signal: NodeJS.Signals): void {
    try {
      process.kill(-this.pid, signal);
    } catch (error) {
      // ESRCH: the group is gone already, which is what a signal to it was for.
      if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
    }
  }
}

export class Lifeline {
  /** The private folder: data, sockets and logs of the server belong here. */
  readonly dir: string;
  readonly #watcher: ChildProcess;

  private constructor(dir: string, watcher: ChildProcess) {
    this.dir = dir;
    this.#watcher = watcher;
  }

  /**
   * @param name goes into the folder's name, so that a leftover could be recognised
   * @param parentDir where the private folder is made @default the system's temporary folder
   */
  static async open(name: string, parentDir: string = tmpdir()): Promise<Lifeline> {
    const dir = await mkdtemp(join(parentDir, `escrowmq-${name}-`));
    mkdirSync(join(dir, 'groups'));
    const watcher = spawn('sh', ['-c', WATCHER_SCRIPT, 'escrowmq-watcher', dir], {
      stdio: ['pipe', 'ignore', 'ignore'],
      detached: true,
      cwd: '/',
    });
    await once(watcher, 'spawn');
    watcher.unref();
    unrefStream(watcher.stdin);
    return new Lifeline(dir, watcher);
  }

  /** Starts a process that ends with this lifeline at the latest. */
  start(options: ProcessOptions): ServerProcess {
    const logFile = join(this.dir, options.log);
    const log = openSync(logFile, 'a');
    const groups = join(this.dir, 'groups');
    const { command, args, env } = inRoot(options.root, this.dir, options);
    const child = spawn('sh', ['-c', ENTRY_SCRIPT, groups, command, ...args], {
      stdio: ['ignore', log, log],
      detached: true,
      cwd: this.dir,
      env,
    });
    closeSync(log);
    // A process id is used again one day: the watcher must not find that of a group long gone.
    return new ServerProcess(child, logFile, () =>
      rmSync(join(groups, String(child.pid)), { force: true }),
    );
  }

  /** Kills whatever still runs and deletes the folder. Safe to call again. */
  async close(): Promise<void> {
    if (this.#watcher.exitCode !== null || this.#watcher.signalCode !== null) return;
    const exited = once(this.#watcher, 'exit');
    this.#watcher.ref();
    this.#watcher.stdin?.end();
    await exited;
  }
}

function unrefStream(stream: unknown): void {
  // A pipe to a child is a net.Socket at run time, which its type does not say.
  if (typeof stream === 'object' && stream !== null && 'unref' in stream) {
    (stream as { unref(): void }).unref();
  }
}

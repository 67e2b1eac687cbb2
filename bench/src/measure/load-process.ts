import type { ChildProcess } from 'node:child_process';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { type CpuUse, cpuUsed, LOAD, readCpu } from './cpu.js';
import { spawnOwned } from './owned-child.js';

/*
 * The boundary between the bench and a load, in whatever language that is written. A load is a
 * child process. Its last argument is a JSON object of settings. It prints `ready` when it is
 * connected, set up and warm, waits for a line `go` on standard input, runs, and prints one JSON line.
 * Then it ends by itself with exit code 0, or says `ready` once more: it is warm still, and spares the next
 * round another warm-up. Such a load ends when its standard input does. Anything wrong (a message short, a call refused) is a sentence on
 * standard error and exit code 1, never a slower figure.
 */

const Latencies = z.object({ p50: z.number(), p90: z.number(), p99: z.number(), max: z.number() });

const LoadResult = z.object({
  operations: z.number().int().positive(),
  seconds: z.number().positive(),
  latencyMs: z.record(z.string(), Latencies).default({}),
  counts: z.record(z.string(), z.number()).optional(),
});

export interface LoadResult extends z.output<typeof LoadResult> {
  /** Finished in every respect: only those. */
  operations: number;
  /** From `go` until the backlog was drained. */
  seconds: number;
  /** By the name of the step: `prepare`, `commit`, … */
  latencyMs: Record<string, z.output<typeof Latencies>>;
  /** Whatever else a load counts, for the notes of a row. */
  counts?: Record<string, number> | undefined;
}

export interface Run extends LoadResult {
  perSecond: number;
  /** By the name of the process, `load` among them; empty where CPU times can't be read. */
  cpuMicrosPerOperation: Record<string, number>;
  /** What processes that are not ours used meanwhile, in percent of one core; 0 where unknown. */
  foreignCpuPercent: number;
}

export interface LoadOptions {
  /** Program and arguments; the settings come last, as JSON. */
  command: readonly [string, ...string[]];
  settings: object;
  /** Process ids by name; each counts with all its descendants. The load itself is added. */
  processes: Record<string, number>;
  /** For the start with its warm-up, and for each run. @default 120000 */
  limitMs?: number;
}

const LIMIT_MS = 120_000;

/** Enough for an error with its stack. */
const ERROR_CHARS = 4_000;

/** A load that is connected and warm. */
export interface OpenLoad {
  /**
   * Measures also the CPU of the processes that serve it, between `go` and the result. Resolves when
   * it is ready for another run, or has ended.
   *
   * @throws Error with what the load said, when it fails, says something else, or takes too long
   */
  run(): Promise<Run>;
  /** Resolves when it has ended. @throws Error when it failed at that */
  close(): Promise<void>;
  /** Ends it at once, whatever it does. */
  kill(): void;
}

/** @throws Error with what the load said, when it does not get ready */
export async function openLoad(options: LoadOptions): Promise<OpenLoad> {
  const { command, settings, limitMs = LIMIT_MS } = options;
  const child = spawnOwned([...command, JSON.stringify(settings)], {
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const name = command.at(-1) ?? '';
  const lines = readLines(child, name);
  const kill = () => void child.kill('SIGKILL');
  /** What takes longer than `limitMs` is killed, and so fails. */
  const limited = async <T>(work: () => Promise<T>): Promise<T> => {
    const timer = setTimeout(kill, limitMs);
    try {
      return await work();
    } catch (error) {
      kill();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  };
  const ready = (line: string | undefined) => {
    if (line !== READY) throw new Error(`${name} said "${line}" instead of "${READY}"`);
  };
  await limited(async () => ready((await lines.next()) ?? (await lines.missing())));
  return {
    run: () =>
      limited(async () => {
        const processes = { ...options.processes, [LOAD]: child.pid ?? 0 };
        const before = readCpu(processes);
        child.stdin?.write('go\n');
        const line = (await lines.next()) ?? (await lines.missing());
        const after = readCpu(processes);
        const again = await lines.next();
        if (again !== undefined) ready(again);
        const use = before && after ? cpuUsed(before, after) : { micros: {}, foreignPercent: 0 };
        return runOf(LoadResult.parse(JSON.parse(line)), use);
      }),
    close: () =>
      limited(async () => {
        child.stdin?.end();
        await lines.end();
      }),
    kill,
  };
}

const READY = 'ready';

const runOf = (result: LoadResult, { micros, foreignPercent }: CpuUse): Run => ({
  ...result,
  perSecond: result.operations / result.seconds,
  cpuMicrosPerOperation: Object.fromEntries(
    Object.entries(micros).map(([key, value]) => [key, value / result.operations]),
  ),
  foreignCpuPercent: foreignPercent,
});

/**
 * Runs one load once.
 *
 * @throws Error with what the load said, when it fails, says something else, or takes too long
 * @example
 * const run = await runLoad({
 *   command: nodeLoad('bare-publish'),
 *   settings: { rabbitmq: url, queueType: 'classic', dataBytes: 256, concurrency: 64, seconds: 3 },
 *   processes: { rabbitmq: pid },
 * });
 */
export async function runLoad(options: LoadOptions): Promise<Run> {
  const load = await openLoad(options);
  try {
    const run = await load.run();
    await load.close();
    return run;
  } finally {
    load.kill();
  }
}

interface Lines {
  /** The next line of standard output; undefined when there is none, and the process has ended well. */
  next(): Promise<string | undefined>;
  /** @throws Error that says that the process has ended without a line that it owed */
  missing(): Promise<never>;
  /** Resolves when the process has ended with exit code 0. @throws Error otherwise */
  end(): Promise<void>;
}

function readLines(child: ChildProcess, name: string): Lines {
  let errors = '';
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    errors = (errors + text).slice(-ERROR_CHARS);
  });
  const ended = new Promise<void>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', (code, signal) => {
      if (code === 0) return resolve();
      reject(new Error(`${name} ended with ${signal ?? `exit code ${code}`}: ${errors.trim()}`));
    });
  });
  // Whoever waits for a line learns of it; nobody has to.
  ended.catch(() => {});
  // A load that ended with an error tells it below; writing `go` to it must not end the bench.
  child.stdin?.on('error', () => {});
  if (child.stdout === null) throw new Error(`${name} has no standard output`);
  const iterator = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async next() {
      const line = await iterator.next();
      if (line.done !== true) return line.value;
      await ended;
      return undefined;
    },
    async missing() {
      throw new Error(`${name} ended without an answer: ${errors.trim()}`);
    },
    end: () => ended,
  };
}

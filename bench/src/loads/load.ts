import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { type Quantiles, quantiles } from '../measure/quantiles.js';

/*
 * The load's side of the boundary that measure/load-process.ts describes, for loads in Node.
 */

/** Settings that every load has. */
export const CommonSettings = z.object({
  /** Closed loops: each starts its next operation when its last one has ended. */
  concurrency: z.number().int().positive(),
  /** No loop starts anything new after it. */
  seconds: z.number().positive(),
  /** Before the first `ready`: what is compiled and filled by then is not measured. */
  warmUpSeconds: z.number().positive().default(1),
});

export interface LoadResult {
  operations: number;
  seconds: number;
  latencyMs: Record<string, Quantiles>;
  counts?: Record<string, number>;
}

export interface Load {
  /** From `go` until all is drained. @throws Error when a message is missing or one too many */
  run(): Promise<LoadResult>;
  /** Undoes a run and gets ready for another one: empties the queue, or fills it. */
  reset?(): Promise<void>;
  close(): Promise<void>;
}

/**
 * Connects and warms up, and for each `go` runs and prints the result, until standard input ends.
 * Whatever goes wrong ends the process with code 1 and the error on standard error.
 *
 * @param prepare connects, sets up and warms up
 * @example await serveLoad(Settings, async (settings) => ({ run: …, close: … }));
 */
export async function serveLoad<S>(
  schema: z.ZodType<S>,
  prepare: (settings: S) => Promise<Load>,
): Promise<void> {
  const settings = schema.parse(JSON.parse(process.argv.at(-1) ?? ''));
  const lines = createInterface({ input: process.stdin });
  // The bench is gone.
  const orphaned = () => process.exit(1);
  lines.once('close', orphaned);
  const load = await prepare(settings);
  lines.off('close', orphaned);
  const ended = once(lines, 'close').then(() => 'end');
  const go = () => Promise.race([once(lines, 'line'), ended]);
  for (;;) {
    const asked = go();
    process.stdout.write('ready\n');
    if ((await asked) === 'end') break;
    process.stdout.write(`${JSON.stringify(await load.run())}\n`);
    await load.reset?.();
  }
  await load.close();
}

/** Latencies of one step, in milliseconds. */
export class Latencies {
  #values: number[] = [];

  add(ms: number): void {
    this.#values.push(ms);
  }

  quantiles(): Quantiles {
    return quantiles(this.#values);
  }
}

/**
 * Runs closed loops of `operation` and waits for the last to end. A failed operation fails it all.
 *
 * @returns how many operations were finished
 */
export async function closedLoops(
  { concurrency, seconds }: z.output<typeof CommonSettings>,
  operation: () => Promise<void>,
): Promise<number> {
  const endsAt = performance.now() + seconds * 1000;
  let operations = 0;
  const loop = async () => {
    do {
      await operation();
      operations += 1;
    } while (performance.now() < endsAt);
  };
  await Promise.all(Array.from({ length: concurrency }, loop));
  return operations;
}

/** One loop alone does too little in that time: its code would be compiled while it is measured. */
const WARM_UP_CONCURRENCY_MIN = 64;

/** The settings with which a load that is about to be measured runs first. */
export const warmUpOf = <S extends z.output<typeof CommonSettings>>(settings: S): S => ({
  ...settings,
  seconds: settings.warmUpSeconds,
  concurrency: Math.max(settings.concurrency, WARM_UP_CONCURRENCY_MIN),
});

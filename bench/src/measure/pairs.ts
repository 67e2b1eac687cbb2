import { type LoadOptions, type OpenLoad, openLoad, type Run } from './load-process.js';
import { type Summary, summarize } from './quantiles.js';

export interface Contender {
  name: string;
  /** Called before the first round: gets everything started and warm. */
  open?(): Promise<void>;
  /** One run; called once a round. */
  run(): Promise<Run>;
  /** Called after the last round, or after a failure, even if it was never opened. */
  close?(): Promise<void>;
}

/**
 * A load that is started once and keeps still between its turns: its code stays compiled, and its
 * connections open.
 *
 * @param options asked for when it is started
 */
export function loadContender(name: string, options: () => LoadOptions): Contender {
  let load: OpenLoad | undefined;
  return {
    name,
    async open() {
      load = await openLoad(options());
    },
    async run() {
      if (load === undefined) throw new Error(`${name} was not opened`);
      return load.run();
    },
    async close() {
      await load?.close();
    },
  };
}

export interface Contended {
  name: string;
  /** One per round, in order. */
  runs: Run[];
  perSecond: Summary;
  /** Its rate by that of the first contender, of the runs of the same round. */
  ratio: Summary;
}

export interface Comparison {
  contenders: Contended[];
  /** @throws Error when there is no contender of that name */
  of(name: string): Contended;
}

/**
 * Lets contenders take turns, A B C A B C …: what disturbs the machine for a while disturbs all of
 * them, and the ratio within a round holds where the rates themselves do not.
 *
 * @param rounds turns that each contender gets
 * @param say told of every run as it ends @default standard error
 * @example
 * const { of } = await alternate([bare, viaSdk], 3);
 * console.log(of('via SDK').ratio.median);
 */
export async function alternate(
  contenders: readonly Contender[],
  rounds: number,
  say: (line: string) => void = (line) => process.stderr.write(`${line}\n`),
): Promise<Comparison> {
  const runs = new Map(contenders.map(({ name }): [string, Run[]] => [name, []]));
  try {
    for (const { open } of contenders) await open?.();
    for (let round = 1; round <= rounds; round += 1) {
      for (const { name, run } of contenders) {
        const result = await run();
        runs.get(name)?.push(result);
        say(`  round ${round}/${rounds}  ${name}: ${lineOf(result)}`);
      }
    }
  } finally {
    const closed = await Promise.allSettled(contenders.map(({ close }) => close?.()));
    for (const each of closed) if (each.status === 'rejected') say(`  ${each.reason}`);
  }
  return compare([...runs].map(([name, itsRuns]) => ({ name, runs: itsRuns })));
}

/** The arithmetic of `alternate`. */
export function compare(measured: readonly { name: string; runs: Run[] }[]): Comparison {
  const first = measured[0]?.runs ?? [];
  const contenders = measured.map(({ name, runs }) => ({
    name,
    runs,
    perSecond: summarize(runs.map((run) => run.perSecond)),
    ratio: summarize(ratios(runs, first, (run) => run.perSecond)),
  }));
  return {
    contenders,
    of(name) {
      const found = contenders.find((contender) => contender.name === name);
      if (found === undefined) throw new Error(`there is no contender "${name}"`);
      return found;
    },
  };
}

/** Round by round, what `figure` says of one contender by what it says of another. */
export function ratios(
  runs: readonly Run[],
  to: readonly Run[],
  figure: (run: Run) => number,
): number[] {
  return runs.map((run, round) => {
    const other = to[round];
    if (other === undefined) throw new Error(`round ${round + 1} has no run to compare with`);
    return figure(run) / figure(other);
  });
}

function lineOf(run: Run): string {
  const { perSecond, latencyMs, cpuMicrosPerOperation, foreignCpuPercent, counts = {} } = run;
  const latencies = Object.entries(latencyMs).map(
    ([step, { p50, p99 }]) => `${step} ${p50.toFixed(1)}/${p99.toFixed(1)} ms`,
  );
  const cpu = Object.entries(cpuMicrosPerOperation).map(
    ([name, micros]) => `${name} ${micros.toFixed(0)}`,
  );
  return [
    `${Math.round(perSecond)}/s`,
    ...latencies,
    ...Object.entries(counts).map(([name, count]) => `${name} ${count.toFixed(0)}`),
    ...(cpu.length === 0 ? [] : [`CPU µs: ${cpu.join(' ')}`]),
    `others ${foreignCpuPercent.toFixed(0)} %`,
  ].join(', ');
}

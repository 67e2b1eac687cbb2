import { chosen, FlagError, type Flags, parseFlags } from './flags.js';
import { describeMachine, type Machine } from './measure/machine.js';
import { type Results, summaryLine, writeResults } from './report/results.js';
import type { Row, SkippedRow } from './report/row.js';
import { goalsOf, tableOf } from './report/table.js';
import type { BenchContext, RowGroup } from './rows/group.js';
import { startServers } from './servers.js';

/*
 * One run of the bench: flags, servers, the groups of rows one after the other, the report. Progress
 * goes to standard error, the report to standard output, and its last line is JSON.
 *
 * A group that fails costs its own rows and the exit code, not what others have measured. A goal that is
 * missed is a figure like any other and no failure.
 */

export interface Bench {
  groups: RowGroup[];
  /** Names the files in results/, which a complete run writes. */
  results: string;
  plot(rows: (Row | SkippedRow)[], machine: Machine): string;
}

/**
 * @param args the command line, without program and script
 * @example await runBench({ groups: [...THROUGHPUT], results: 'latest', plot }, process.argv.slice(2));
 */
export async function runBench(bench: Bench, args: readonly string[]): Promise<void> {
  const asked = askedFor(bench, args);
  if (asked === undefined) return;
  const { flags, groups } = asked;
  // Leaving through the exit handlers: everything started here ends with this process.
  process.once('SIGINT', () => process.exit(130));
  process.once('SIGTERM', () => process.exit(143));

  say('starting RabbitMQ and MariaDB');
  const servers = await startServers();
  try {
    const machine = await describeMachine(servers);
    const rows = await measure(groups, { servers, ...flags });
    const { rounds, seconds, warmUpSeconds } = flags;
    const results: Results = { machine, rounds, seconds, warmUpSeconds, rows };
    process.stdout.write(
      `${[headOf(results), tableOf(rows), goalsOf(rows), summaryLine(results)].join('\n\n')}\n`,
    );
    if (!flags.quick && flags.only === undefined && process.exitCode !== 1) {
      writeResults(bench.results, results, bench.plot(rows, machine));
    }
  } finally {
    await servers.close();
  }
}

/** Flags and groups; undefined, with a message and exit code 2, when the flags are wrong. */
function askedFor(
  { groups }: Bench,
  args: readonly string[],
): { flags: Flags; groups: RowGroup[] } | undefined {
  try {
    const flags = parseFlags(args);
    return { flags, groups: chosen(groups, flags) };
  } catch (error) {
    if (!(error instanceof FlagError)) throw error;
    say(error.message);
    process.exitCode = 2;
    return undefined;
  }
}

async function measure(groups: RowGroup[], context: BenchContext): Promise<(Row | SkippedRow)[]> {
  const rows: (Row | SkippedRow)[] = [];
  for (const [index, group] of groups.entries()) {
    say(`${group.name} (${index + 1} of ${groups.length})`);
    try {
      rows.push(...(await group.run(context)));
    } catch (error) {
      say(`${group.name} failed: ${error instanceof Error ? error.stack : error}`);
      const reason = error instanceof Error ? error.message : String(error);
      rows.push({ id: group.name, title: group.name, skipped: `failed: ${reason}` });
      process.exitCode = 1;
    }
  }
  return rows;
}

function headOf({ machine, rounds, seconds, warmUpSeconds }: Results): string {
  const settings = Object.entries(machine.mariadbSettings).map(
    ([name, value]) => `${name}=${value}`,
  );
  return [
    '',
    `EscrowMQ bench, ${machine.date}: ${rounds} rounds of ${seconds} s after ${warmUpSeconds} s of warm-up, median [range]`,
    `${machine.cores} × ${machine.cpu}, ${machine.memoryGiB} GiB, ${machine.system}, Node ${machine.node}`,
    `RabbitMQ ${machine.rabbitmq}; MariaDB ${machine.mariadb}; one synced write ${machine.syncMs.toFixed(2)} ms`,
    `MariaDB: ${settings.join(' ')}`,
    'Servers, broker and load share this machine.',
  ].join('\n');
}

const say = (line: string) => void process.stderr.write(`${line}\n`);

import { machineInShort } from './measure/machine.js';
import { barChart, figureBars } from './report/plot.js';
import type { RowGroup } from './rows/group.js';
import { runBench } from './run-bench.js';

/** npm run bench:peers: EscrowMQ beside others that promise the same or nearly so. */
const GROUPS: RowGroup[] = [];

await runBench(
  {
    groups: GROUPS,
    results: 'peers',
    plot: (rows, machine) =>
      barChart({
        title: 'Transactions per second, side by side in one run',
        subtitle: machineInShort(machine),
        bars: figureBars(rows, '/s'),
      }),
  },
  process.argv.slice(2),
);

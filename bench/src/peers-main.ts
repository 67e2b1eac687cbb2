import { machineInShort } from './measure/machine.js';
import { barChart, figureBars } from './report/plot.js';
import { delivery } from './rows/delivery.js';
import type { RowGroup } from './rows/group.js';
import { outboxes } from './rows/outboxes.js';
import { peers } from './rows/peers.js';
import { runBench } from './run-bench.js';

/** npm run bench:peers: EscrowMQ beside others that promise the same or nearly so. */
const GROUPS: RowGroup[] = [outboxes, delivery, peers];

await runBench(
  {
    groups: GROUPS,
    results: 'peers',
    plot: (rows, machine) =>
      barChart({
        title: 'Transactions per second, side by side in one run',
        subtitle: machineInShort(machine),
        // A row with a ratio repeats a rate of EscrowMQ that has a bar of its own, or none beside it.
        bars: figureBars(
          rows.filter((row) => !('ratio' in row)),
          '/s',
        ),
      }),
  },
  process.argv.slice(2),
);

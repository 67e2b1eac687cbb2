import { machineInShort } from './measure/machine.js';
import { barChart, figureBars } from './report/plot.js';
import { delivery } from './rows/delivery.js';
import type { RowGroup } from './rows/group.js';
import { localTransaction } from './rows/local-transaction.js';
import { outboxes } from './rows/outboxes.js';
import { peers } from './rows/peers.js';
import { runBench } from './run-bench.js';

/** npm run bench:peers: EscrowMQ beside others that promise the same or nearly so. */
const GROUPS: RowGroup[] = [outboxes, localTransaction, delivery, peers];

/** A turn of RocketMQ takes 20 s, most of it its warm-up: with five rounds the whole took 18 minutes. */
const ROUNDS = ['--rounds', '3'];

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
  // Of a flag that is given twice, the last one counts.
  [...ROUNDS, ...process.argv.slice(2)],
);

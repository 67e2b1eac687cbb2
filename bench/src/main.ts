import { type Machine, machineInShort } from './measure/machine.js';
import { barChart, ratioBars } from './report/plot.js';
import type { Row, SkippedRow } from './report/row.js';
import { BIG_STORE } from './rows/big-store.js';
import { consuming } from './rows/consuming.js';
import { commitToHandler } from './rows/delivery.js';
import type { RowGroup } from './rows/group.js';
import { localTransaction } from './rows/local-transaction.js';
import { SINGLE } from './rows/single.js';
import { STOPPED_RABBITMQ } from './rows/stopped-rabbitmq.js';
import { THROUGHPUT } from './rows/throughput.js';
import { runBench } from './run-bench.js';

/** npm run bench: EscrowMQ against the limit, which is bare confirmed publishing. */
const GROUPS: RowGroup[] = [
  ...THROUGHPUT,
  ...SINGLE,
  ...BIG_STORE,
  ...STOPPED_RABBITMQ,
  localTransaction,
  commitToHandler,
  consuming,
];

/** Rows that are compared with bare publishing; all others have units of their own. */
function plot(rows: (Row | SkippedRow)[], machine: Machine): string {
  const compared = rows.filter((row) => 'ratio' in row && row.ratio?.of === 'bare publishing');
  return barChart({
    title: 'Transactions per second, as a share of bare confirmed publishing',
    subtitle: `${machineInShort(machine)}; red: the goal`,
    bars: ratioBars(compared),
  });
}

await runBench({ groups: GROUPS, results: 'latest', plot }, process.argv.slice(2));

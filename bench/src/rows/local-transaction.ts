import { alternate } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { RowGroup } from './group.js';
import { ESCROW, PLAIN, startLocalTransactionRuns } from './local-transaction-runs.js';

const CONCURRENCY = 16;

const BY_ESCROW = 'producer.transaction';
const WITHOUT = 'without a message';

/** What a message adds to the time of a local transaction. */
export const localTransaction: RowGroup = {
  name: 'local-transaction',
  quick: false,
  async run(context) {
    const runs = await startLocalTransactionRuns(context);
    try {
      const load = {
        name: 'local-transaction',
        settings: { concurrency: CONCURRENCY },
      };
      const comparison = await alternate(
        [runs.contender(WITHOUT, PLAIN, load), runs.contender(BY_ESCROW, ESCROW, load)],
        context.rounds,
      );
      const p50s = (name: string) =>
        comparison.of(name).runs.map(({ latencyMs }) => latencyMs.transaction?.p50 ?? 0);
      const [plain, escrow] = [p50s(WITHOUT), p50s(BY_ESCROW)];
      const added = escrow.map((p50, round) => p50 - (plain[round] ?? 0));
      return [
        {
          id: `local-transaction-${CONCURRENCY}`,
          title: `What a message adds to a local transaction (p50), ${CONCURRENCY} at a time`,
          unit: 'ms',
          value: summarize(added),
          goal: { must: 4, aim: 2, better: 'lower' },
          notes: [
            `p50 ${summarize(escrow).median.toFixed(1)} ms with a message, ${summarize(plain).median.toFixed(1)} ms without`,
          ],
          runs: comparison.of(BY_ESCROW).runs,
        },
      ];
    } finally {
      await runs.close();
    }
  },
};

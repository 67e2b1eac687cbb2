import { alternate, type Comparison, ratios } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { Row } from '../report/row.js';
import type { RowGroup } from './group.js';
import {
  COMMON_OUTBOX,
  ESCROW,
  GOOD_OUTBOX,
  QUEUE_TYPE,
  startLocalTransactionRuns,
} from './local-transaction-runs.js';

const CONCURRENCIES = [64, 256];

const BY_ESCROW = 'producer.transaction';
const GOOD = 'good outbox';
const COMMON = 'common outbox';

/** `producer.transaction` beside the outbox that teams write by hand: local transactions a second. */
export const outboxes: RowGroup = {
  name: 'outboxes',
  quick: false,
  async run(context) {
    const runs = await startLocalTransactionRuns(context);
    try {
      const rows: Row[] = [];
      for (const concurrency of CONCURRENCIES) {
        const load = {
          name: 'local-transaction',
          settings: { concurrency },
        };
        const contenders = [
          runs.contender(GOOD, GOOD_OUTBOX, load),
          runs.contender(BY_ESCROW, ESCROW, load),
          runs.contender(COMMON, COMMON_OUTBOX, load),
        ];
        rows.push(...rowsOf(await alternate(contenders, context.rounds), concurrency));
      }
      return rows;
    } finally {
      await runs.close();
    }
  },
};

const NOTES: string[] = [
  `one insert each, pool of 32 connections, ${QUEUE_TYPE} queue, MariaDB of the business apart from the broker's`,
];

function rowsOf(comparison: Comparison, concurrency: number): Row[] {
  const escrow = comparison.of(BY_ESCROW);
  const good = comparison.of(GOOD);
  const common = comparison.of(COMMON);
  const beside = (other: typeof good) =>
    summarize(ratios(escrow.runs, other.runs, (run) => run.perSecond));
  const cpu = (of: typeof good, process: string) =>
    summarize(of.runs.map(({ cpuMicrosPerOperation }) => cpuMicrosPerOperation[process] ?? 0))
      .median;
  const businessCpu = [good, escrow, common]
    .map((of) => `${of.name} ${cpu(of, 'business').toFixed(0)}`)
    .join(', ');
  return [
    {
      id: `outbox-good-${concurrency}`,
      title: `producer.transaction, ${concurrency} at a time, beside a good outbox`,
      unit: '/s',
      value: escrow.perSecond,
      ratio: { of: 'a good outbox by hand', value: beside(good), must: 0.8, aim: 1 },
      notes: [...NOTES, `CPU of the business database per transaction, µs: ${businessCpu}`],
      runs: escrow.runs,
    },
    {
      id: `outbox-common-${concurrency}`,
      title: `producer.transaction, ${concurrency} at a time, beside a common outbox`,
      unit: '/s',
      value: escrow.perSecond,
      ratio: {
        of: 'an outbox that awaits each message',
        value: beside(common),
        must: 2,
        aim: 4,
      },
      notes: NOTES,
      runs: common.runs,
    },
  ];
}

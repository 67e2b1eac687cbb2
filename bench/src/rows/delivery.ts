import type { Run } from '../measure/load-process.js';
import { alternate, type Comparison, type Contended, ratios } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { Row } from '../report/row.js';
import type { BenchContext, RowGroup } from './group.js';
import {
  COMMON_OUTBOX,
  EAGER_OUTBOX,
  ESCROW,
  GOOD_OUTBOX,
  type LocalTransactionRuns,
  startLocalTransactionRuns,
} from './local-transaction-runs.js';

/** A moderate rate: all of these keep up with it, and the machine has time left. */
const PER_SECOND = 200;
const CONCURRENCY = 16;
/** As many transactions as they manage: what waits in an outbox then counts as well. */
const CONCURRENCY_FULL = 64;

const BY_ESCROW = 'producer.transaction';
const BY_SDK = 'producer.transaction to the consumer SDK';
const GOOD = 'good outbox';
const EAGER = 'eager outbox';
const COMMON = 'common outbox';

/** From the local COMMIT to a handler of the consumer SDK: EscrowMQ from end to end. */
export const commitToHandler: RowGroup = {
  name: 'commit-to-handler',
  quick: false,
  async run(context) {
    const runs = await startLocalTransactionRuns(context);
    try {
      const contender = runs.contender(BY_SDK, ESCROW, atModerateRateBy('sdk'));
      const { of } = await alternate([contender], context.rounds);
      return [handlerRow(of(BY_SDK))];
    } finally {
      await runs.close();
    }
  },
};

/** From the local COMMIT to the consumer, beside outboxes. */
export const delivery: RowGroup = {
  name: 'delivery',
  quick: false,
  async run(context) {
    const runs = await startLocalTransactionRuns(context);
    try {
      return [...(await atModerateRate(runs, context)), ...(await atFullRate(runs, context))];
    } finally {
      await runs.close();
    }
  },
};

const p50 = ({ latencyMs }: Run) => latencyMs.commitToConsumer?.p50 ?? Number.NaN;
const p99 = ({ latencyMs }: Run) => latencyMs.commitToConsumer?.p99 ?? Number.NaN;

const atModerateRateBy = (consumer: 'bare' | 'sdk') => ({
  name: 'local-transaction-delivery',
  settings: { concurrency: CONCURRENCY, perSecond: PER_SECOND, consumer },
});

async function atModerateRate(
  runs: LocalTransactionRuns,
  { rounds }: BenchContext,
): Promise<Row[]> {
  const load = atModerateRateBy('bare');
  const comparison = await alternate(
    [
      runs.contender(GOOD, GOOD_OUTBOX, load),
      runs.contender(BY_ESCROW, ESCROW, load),
      runs.contender(EAGER, EAGER_OUTBOX, load),
      runs.contender(COMMON, COMMON_OUTBOX, load),
      runs.contender(BY_SDK, ESCROW, atModerateRateBy('sdk')),
    ],
    rounds,
  );
  return [
    rowBesideGoodOutbox(comparison, {
      id: `commit-to-consumer-${PER_SECOND}`,
      title: `Local COMMIT to consumer (p50), ${PER_SECOND} a second`,
      others: [GOOD, EAGER, COMMON],
    }),
    handlerRow(comparison.of(BY_SDK)),
  ];
}

function handlerRow({ runs }: Contended): Row {
  return {
    id: `commit-to-handler-${PER_SECOND}`,
    title: `Local COMMIT to handler of the consumer SDK (p50), ${PER_SECOND} a second`,
    unit: 'ms',
    value: summarize(runs.map(p50)),
    notes: [`p99 ${summarize(runs.map(p99)).median.toFixed(1)} ms`],
    runs,
  };
}

async function atFullRate(runs: LocalTransactionRuns, { rounds }: BenchContext): Promise<Row[]> {
  const load = {
    name: 'local-transaction-delivery',
    settings: { concurrency: CONCURRENCY_FULL, consumer: 'bare' },
  };
  const comparison = await alternate(
    [
      runs.contender(GOOD, GOOD_OUTBOX, load),
      runs.contender(BY_ESCROW, ESCROW, load),
      runs.contender(COMMON, COMMON_OUTBOX, load),
    ],
    rounds,
  );
  return [
    rowBesideGoodOutbox(comparison, {
      id: 'commit-to-consumer-full',
      title: `Local COMMIT to consumer (p50), ${CONCURRENCY_FULL} at a time without a pause`,
      others: [GOOD, COMMON],
    }),
  ];
}

function rowBesideGoodOutbox(
  comparison: Comparison,
  { id, title, others }: { id: string; title: string; others: string[] },
): Row {
  const escrow = comparison.of(BY_ESCROW);
  return {
    id,
    title,
    unit: 'ms',
    value: summarize(escrow.runs.map(p50)),
    ratio: {
      of: 'a good outbox by hand',
      value: summarize(ratios(escrow.runs, comparison.of(GOOD).runs, p50)),
      must: 0.2,
      aim: 0.1,
      better: 'lower',
    },
    notes: [
      `p50/p99 in ms: ${[escrow, ...others.map(comparison.of)].map(latenciesOf).join(', ')}`,
      'the good outbox reads every 100 ms, and at once after a full batch; the eager one pauses only when it found nothing',
    ],
    runs: escrow.runs,
  };
}

function latenciesOf({ name, runs }: Contended): string {
  const median = (figure: (run: Run) => number) => summarize(runs.map(figure)).median.toFixed(1);
  return `${name} ${median(p50)}/${median(p99)}`;
}

import {
  alternate,
  type Comparison,
  type Contended,
  type Contender,
  loadContender,
  ratios,
} from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { Row } from '../report/row.js';
import { type BenchContext, DATA_BYTES, nodeLoad, type RowGroup } from './group.js';

/** Messages out at a time: what the consumer SDK takes unless told otherwise. */
const PREFETCH = 16;
/** Without work, where the limit is the consumer's own code. */
const PREFETCH_MANY = 256;

/** About what a bare consumer takes in a second of this machine, and one with a database. */
const MESSAGES_PER_SECOND = { nothing: 15_000, byHand: 2_500, once: 2_500 };

type Work = keyof typeof MESSAGES_PER_SECOND;

const BARE = 'bare amqplib';
const SDK = 'consumer SDK';
const BY_HAND = 'amqplib and a transaction by hand';
const ONCE = 'consumer SDK and once';

/** The consumer SDK beside amqplib, on a queue that is full. */
export const consuming: RowGroup = {
  name: 'consuming',
  quick: false,
  async run(context) {
    const database = await context.servers.mariadb.createDatabase();
    const few = { database, prefetch: PREFETCH };
    const many = { database, prefetch: PREFETCH_MANY };
    const contender = (what: Omit<What, 'context'>) => consumer({ context, ...what });
    const atFew = await alternate(
      [
        contender({ ...few, name: BARE, consumer: 'bare', work: 'nothing' }),
        contender({ ...few, name: SDK, consumer: 'sdk', work: 'nothing' }),
        contender({ ...few, name: BY_HAND, consumer: 'bare', work: 'byHand' }),
        contender({ ...few, name: ONCE, consumer: 'sdk', work: 'once' }),
      ],
      context.rounds,
    );
    const atMany = await alternate(
      [
        contender({ ...many, name: BARE, consumer: 'bare', work: 'nothing' }),
        contender({ ...many, name: SDK, consumer: 'sdk', work: 'nothing' }),
      ],
      context.rounds,
    );
    return [rowOf(atFew, PREFETCH), rowOf(atMany, PREFETCH_MANY), onceRow(atFew)];
  },
};

interface What {
  context: BenchContext;
  name: string;
  consumer: 'bare' | 'sdk';
  work: Work;
  prefetch: number;
  /** URL of the consumer's own. */
  database: string;
}

function consumer({ context, name, consumer, work, prefetch, database }: What): Contender {
  const { seconds, warmUpSeconds } = context;
  const { rabbitmq, mariadb } = context.servers;
  return loadContender(name, () => ({
    command: nodeLoad('consume'),
    settings: {
      rabbitmq: rabbitmq.url,
      dataBytes: DATA_BYTES,
      messages: Math.ceil(MESSAGES_PER_SECOND[work] * seconds),
      warmUpSeconds,
      concurrency: prefetch,
      consumer,
      work,
      database,
    },
    processes: { rabbitmq: rabbitmq.pid(), mariadb: mariadb.pid() },
  }));
}

function rowOf(comparison: Comparison, prefetch: number): Row {
  const { perSecond, ratio, runs } = comparison.of(SDK);
  return {
    id: `consume-${prefetch}`,
    title: `Consuming by the SDK, ${prefetch} at a time`,
    unit: '/s',
    value: perSecond,
    ratio: { of: 'a bare amqplib consumer', value: ratio, must: 0.8, aim: 0.95 },
    notes: ['quorum queue, filled before; the handler does nothing'],
    runs,
  };
}

function onceRow(comparison: Comparison): Row {
  const once = comparison.of(ONCE);
  const beside = (other: Contended) =>
    summarize(ratios(once.runs, other.runs, (run) => run.perSecond));
  return {
    id: `consume-once-${PREFETCH}`,
    title: `Consuming by the SDK with once, ${PREFETCH} at a time`,
    unit: '/s',
    value: once.perSecond,
    ratio: {
      of: 'amqplib with the same transaction by hand',
      value: beside(comparison.of(BY_HAND)),
      must: 0.8,
      aim: 0.95,
    },
    notes: [
      'one insert and the note of the message id in one transaction of MariaDB',
      `${once.ratio.median.toFixed(2)} of a bare consumer that writes nothing`,
    ],
    runs: once.runs,
  };
}

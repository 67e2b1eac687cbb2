import type { LoadOptions } from '../measure/load-process.js';
import { alternate, type Comparison, type Contender, loadContender } from '../measure/pairs.js';
import type { Goal, Row, SkippedRow } from '../report/row.js';
import type { Broker, Servers, StoreKind } from '../servers.js';
import { type BenchContext, DATA_BYTES, nodeLoad, type QueueType, type RowGroup } from './group.js';
import { brokerCpuRows, latencyRows } from './latency.js';
import { rateRow } from './rate-row.js';

/*
 * Transactions a second, by bare confirmed publishes a second on the same kind of queue with as many
 * in flight: R. A transaction is a durable prepare, a durable commit, and a confirm of RabbitMQ; a
 * run ends when the last one is. Nobody consumes.
 *
 * Of n closed loops only those that wait for their confirm are in flight at RabbitMQ, while bare
 * publishing has all n there, so the comparison is on the side of bare publishing.
 */

const BARE = 'bare publishing';

/** How producers talk to the broker, which is the load's name. */
type Way = 'sdk' | 'http';

interface Kind {
  way: Way;
  store: StoreKind;
  /** Whether it belongs to `--quick`. */
  quick: boolean;
}

const KINDS: Record<QueueType, Kind[]> = {
  classic: [
    { way: 'sdk', store: 'mariadb', quick: true },
    { way: 'sdk', store: 'sqlite', quick: true },
    { way: 'http', store: 'mariadb', quick: true },
    { way: 'http', store: 'sqlite', quick: false },
  ],
  quorum: [
    { way: 'sdk', store: 'mariadb', quick: true },
    { way: 'sdk', store: 'sqlite', quick: false },
  ],
};

const WORDS = {
  sdk: 'SDK',
  http: 'HTTP per call',
  mariadb: 'MariaDB',
  sqlite: 'SQLite',
} as const;

/** R at 256 concurrent. SQLite's `must` is what MariaDB reached in the same run. */
const GOALS: Record<string, Goal> = {
  'sdk-mariadb-classic': { must: 0.5, aim: 0.7 },
  'sdk-sqlite-classic': { aim: 0.75 },
  'http-mariadb-classic': { must: 0.33, aim: 0.45 },
  'sdk-mariadb-quorum': { must: 0.35, aim: 0.5 },
  'sdk-sqlite-quorum': { aim: 0.55 },
};
const GOALS_AT = 256;
/** Where latencies and CPU are held against their goals. */
const LATENCIES_AT = 64;

const CONCURRENCIES = [1, 16, 64, 256];

export const THROUGHPUT: RowGroup[] = [
  ...CONCURRENCIES.map((concurrency) => group('classic', concurrency)),
  group('quorum', GOALS_AT),
];

function group(queueType: QueueType, concurrency: number): RowGroup {
  return {
    name: `throughput-${queueType}-${concurrency}`,
    quick: concurrency === GOALS_AT,
    async run(context) {
      const kinds = KINDS[queueType].filter((kind) => kind.quick || !context.quick);
      const brokers = await startBrokers(context.servers, kinds);
      try {
        const common = { queueType, concurrency };
        const comparison = await alternate(
          [
            barePublishing(context, common),
            ...kinds.map((kind) => transactions(context, { ...common, kind, broker: of(kind) })),
          ],
          context.rounds,
        );
        return rowsOf(comparison, kinds, common);
      } finally {
        for (const broker of brokers.values()) await broker.stop();
      }

      function of({ store }: Kind): Broker {
        const broker = brokers.get(store);
        if (broker === undefined) throw new Error(`no broker was started on ${store}`);
        return broker;
      }
    },
  };
}

/** One for each store, on a fresh one. */
async function startBrokers(servers: Servers, kinds: Kind[]): Promise<Map<StoreKind, Broker>> {
  const brokers = new Map<StoreKind, Broker>();
  for (const { store } of kinds) {
    if (!brokers.has(store)) brokers.set(store, await servers.startBroker({ store }));
  }
  return brokers;
}

interface Common {
  queueType: QueueType;
  concurrency: number;
}

const settingsOf = ({ servers, seconds, warmUpSeconds }: BenchContext, common: Common) => ({
  ...common,
  rabbitmq: servers.rabbitmq.url,
  dataBytes: DATA_BYTES,
  seconds,
  warmUpSeconds,
});

export function barePublishing(context: BenchContext, common: Common): Contender {
  return loadContender(BARE, () => ({
    command: nodeLoad('bare-publish'),
    settings: settingsOf(context, common),
    processes: { rabbitmq: context.servers.rabbitmq.pid() },
  }));
}

/** What to measure of EscrowMQ: one way on one store. */
type What = Common & { kind: Pick<Kind, 'way' | 'store'>; broker: Broker };

export const transactions = (context: BenchContext, what: What): Contender =>
  loadContender(nameOf(what.kind), () => transactionsLoad(context, what));

export function transactionsLoad(
  context: BenchContext,
  { kind, broker, ...common }: What,
): LoadOptions {
  const { rabbitmq, mariadb } = context.servers;
  return {
    command: nodeLoad(kind.way),
    settings: { ...settingsOf(context, common), broker: broker.url },
    processes: {
      broker: broker.pid(),
      rabbitmq: rabbitmq.pid(),
      ...(kind.store === 'mariadb' ? { mariadb: mariadb.pid() } : {}),
    },
  };
}

const nameOf = ({ way, store }: Pick<Kind, 'way' | 'store'>) => `${way}-${store}`;

function rowsOf(
  comparison: Comparison,
  kinds: Kind[],
  { queueType, concurrency }: Common,
): (Row | SkippedRow)[] {
  const where = `${concurrency} concurrent, ${queueType} queue`;
  const suffix = `${queueType}-${concurrency}`;
  const rows: (Row | SkippedRow)[] = [
    rateRow({ id: `bare-${suffix}`, title: `Bare publishing, ${where}` }, comparison.of(BARE)),
  ];
  for (const kind of kinds) {
    const title = `${WORDS[kind.way]} on ${WORDS[kind.store]}, ${where}`;
    const goal = concurrency === GOALS_AT ? goalOf(comparison, kind, queueType) : {};
    const words = { words: BARE, goal };
    const contended = comparison.of(nameOf(kind));
    rows.push(rateRow({ id: `${nameOf(kind)}-${suffix}`, title }, contended, words));
  }
  if (queueType === 'classic' && concurrency === LATENCIES_AT) {
    rows.push(...latencyRows(comparison.of('sdk-mariadb').runs, where));
  }
  if (queueType === 'classic' && concurrency === GOALS_AT) {
    const runsOf = (way: Way) => comparison.of(`${way}-mariadb`).runs;
    rows.push(...brokerCpuRows({ sdk: runsOf('sdk'), http: runsOf('http') }, where));
  }
  return rows;
}

function goalOf(comparison: Comparison, kind: Kind, queueType: QueueType): Goal {
  const goal = GOALS[`${nameOf(kind)}-${queueType}`] ?? {};
  if (kind.way !== 'sdk' || kind.store !== 'sqlite') return goal;
  return { ...goal, must: comparison.of('sdk-mariadb').ratio.median };
}

import type { Run } from '../measure/load-process.js';
import { alternate, type Comparison, type Contender, ratios } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { Row, SkippedRow } from '../report/row.js';
import type { Broker, MariadbServer, StoreKind } from '../servers.js';
import { type Filling, fillStore } from './fill-store.js';
import type { BenchContext, RowGroup } from './group.js';
import { figureRow, rateRow } from './rate-row.js';
import { transactions } from './throughput.js';

/*
 * What a transaction costs in a store that already holds a million: open ones, which wait for their
 * verdict, or finished ones, which wait for retention. Each store has a broker of its own and, on
 * MariaDB, a server of its own with a buffer pool smaller than the rows, so that what a store does
 * in the background counts for that store and no other.
 *
 * Housekeeping runs as it always does. The empty store is empty when it begins, and holds no more
 * than its own runs have left.
 */

const ROWS = 1_000_000;
const MILLION = '1 M';

const CONCURRENCY = 256;

/** By the empty store's cost. */
const COST_MUST = 1.15;
const COST_AIM = 1.05;

const SIZE_NOTES: Record<StoreKind, string[]> = {
  mariadb: ['the rows take 0.7 GB; innodb_buffer_pool_size stands at the head of the report'],
  sqlite: [],
};

const EMPTY = 'empty store';

const FILLINGS: Filling[] = ['open', 'finished'];

export const BIG_STORE: RowGroup[] = [
  { name: 'big-store-mariadb', quick: false, run: (context) => bigStoreRows(context, 'mariadb') },
  { name: 'big-store-sqlite', quick: false, run: (context) => bigStoreRows(context, 'sqlite') },
];

async function bigStoreRows(context: BenchContext, kind: StoreKind): Promise<(Row | SkippedRow)[]> {
  const brokers: Broker[] = [];
  try {
    const contenders: Contender[] = [];
    for (const filling of [undefined, ...FILLINGS]) {
      const store = await startStore(context, kind, filling);
      brokers.push(store.broker);
      contenders.push(store.contender);
    }
    const comparison = await alternate(contenders, context.rounds);
    return FILLINGS.flatMap((filling) => rowsOf(comparison, kind, filling));
  } finally {
    for (const broker of brokers) await broker.stop();
  }
}

const nameOf = (filling: Filling | undefined) =>
  filling === undefined ? EMPTY : `${MILLION} ${filling}`;

/** A store, filled, and a broker on it. */
async function startStore(
  context: BenchContext,
  kind: StoreKind,
  filling: Filling | undefined,
): Promise<{ broker: Broker; contender: Contender }> {
  const { servers } = context;
  const mariadb = kind === 'mariadb' ? await servers.startMariadb() : servers.mariadb;
  const url = await storeUrl(context, kind, mariadb);
  if (filling !== undefined) {
    const startedAt = performance.now();
    await fillStore(url, filling, ROWS);
    const seconds = (performance.now() - startedAt) / 1000;
    process.stderr.write(`  filled with ${nameOf(filling)} in ${seconds.toFixed(0)} s\n`);
  }
  const broker = await servers.startBroker({ store: { url } });
  const own = { ...context, servers: { ...servers, mariadb } };
  const what = { kind: { way: 'sdk', store: kind }, broker, queueType: 'classic' } as const;
  const contender = transactions(own, { ...what, concurrency: CONCURRENCY });
  return { broker, contender: { ...contender, name: nameOf(filling) } };
}

const storeUrl = ({ servers }: BenchContext, kind: StoreKind, mariadb: MariadbServer) =>
  kind === 'mariadb' ? mariadb.createDatabase() : servers.freshStoreUrl('sqlite');

/** CPU of broker and database for one transaction; undefined where it can't be read. */
function storeCpu({ cpuMicrosPerOperation: { broker, mariadb } }: Run): number | undefined {
  return broker === undefined ? undefined : broker + (mariadb ?? 0);
}

function rowsOf(comparison: Comparison, kind: StoreKind, filling: Filling): (Row | SkippedRow)[] {
  const contended = comparison.of(nameOf(filling));
  const empty = comparison.of(EMPTY);
  const on = `SDK on ${kind === 'mariadb' ? 'MariaDB' : 'SQLite'}`;
  const where = `${MILLION} ${filling} in the store, ${CONCURRENCY} concurrent, classic queue`;
  const id = `big-store-${filling}-${kind}`;
  const emptyRate = Math.round(empty.perSecond.median).toLocaleString('en-US');
  const rate = rateRow(
    {
      id,
      title: `${on}, ${where}`,
      notes: [`the empty store: ${emptyRate} a second`, ...SIZE_NOTES[kind]],
    },
    contended,
    { words: 'the empty store', goal: { must: 1 / COST_MUST, aim: 1 / COST_AIM } },
  );
  const cpu = figureRow(
    {
      id: `${id}-cpu`,
      title: `CPU of broker and database per transaction, ${on}, ${where}`,
      unit: 'µs',
    },
    contended.runs,
    storeCpu,
  );
  if ('skipped' in cpu) return [rate, cpu];
  const value = summarize(ratios(contended.runs, empty.runs, (run) => storeCpu(run) ?? Number.NaN));
  const ratio = { of: 'the empty store', value, must: COST_MUST, aim: COST_AIM } as const;
  return [rate, { ...cpu, ratio: { ...ratio, better: 'lower' } }];
}

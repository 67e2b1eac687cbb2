import { alternate, type Contender, loadContender } from '../measure/pairs.js';
import type { Row, SkippedRow } from '../report/row.js';
import type { StoreKind } from '../servers.js';
import { type BenchContext, DATA_BYTES, nodeLoad, type RowGroup } from './group.js';
import { latencyOf } from './latency.js';
import { figureRow } from './rate-row.js';
import { transactions } from './throughput.js';

/*
 * One transaction at a time: batching helps nobody here, and what a prepare takes beyond one
 * durable INSERT into the same store is the broker's own.
 */

/** Beyond the INSERT, in milliseconds. */
const BEYOND_MS_MUST = 1;
const BEYOND_MS_AIM = 0.5;

export const SINGLE: RowGroup[] = [
  { name: 'single-mariadb', quick: false, run: (context) => singleRows(context, 'mariadb') },
  { name: 'single-sqlite', quick: false, run: (context) => singleRows(context, 'sqlite') },
];

async function singleRows(context: BenchContext, store: StoreKind): Promise<(Row | SkippedRow)[]> {
  const broker = await context.servers.startBroker({ store });
  try {
    const kind = { way: 'sdk', store } as const;
    const comparison = await alternate(
      [
        await inserts(context, store),
        transactions(context, { kind, broker, queueType: 'classic', concurrency: 1 }),
      ],
      context.rounds,
    );
    const inserted = comparison.of('insert').runs;
    const prepared = comparison.of(`sdk-${store}`).runs;
    const on = `on ${store === 'mariadb' ? 'MariaDB' : 'SQLite'}`;
    const p50 = (id: string, title: string, step: string) =>
      figureRow({ id, title, unit: 'ms' }, step === 'insert' ? inserted : prepared, (run) =>
        latencyOf(run, step, 'p50'),
      );
    return [
      p50(`insert-${store}-1`, `One durable INSERT p50, one at a time, ${on}`, 'insert'),
      p50(`prepare-${store}-1`, `Prepare p50, one at a time, SDK ${on}`, 'prepare'),
      p50(`commit-${store}-1`, `Commit p50, one at a time, SDK ${on}`, 'commit'),
      figureRow(
        {
          id: `prepare-beyond-insert-${store}-1`,
          title: `Prepare p50 less INSERT p50, one at a time, SDK ${on}`,
          unit: 'ms',
          goal: { must: BEYOND_MS_MUST, aim: BEYOND_MS_AIM, better: 'lower' },
        },
        prepared,
        (run, round) => {
          const insert = inserted[round];
          return insert && latencyOf(run, 'prepare', 'p50') - latencyOf(insert, 'insert', 'p50');
        },
      ),
    ];
  } finally {
    await broker.stop();
  }
}

async function inserts(
  { servers, seconds, warmUpSeconds }: BenchContext,
  store: StoreKind,
): Promise<Contender> {
  const storeUrl = await servers.freshStoreUrl(store);
  return loadContender('insert', () => ({
    command: nodeLoad('insert'),
    settings: { concurrency: 1, seconds, warmUpSeconds, storeUrl, dataBytes: DATA_BYTES },
    processes: store === 'mariadb' ? { mariadb: servers.mariadb.pid() } : {},
  }));
}

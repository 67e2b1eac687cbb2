import { alternate, type Contender, loadContender } from '../measure/pairs.js';
import type { Row } from '../report/row.js';
import { type BenchContext, DATA_BYTES, nodeLoad, type RowGroup } from './group.js';

/** Messages out at a time: what the consumer SDK takes unless told otherwise, and many. */
const PREFETCHES = [16, 256];

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
    const rows: Row[] = [];
    for (const prefetch of PREFETCHES) rows.push(...(await rowsAt(prefetch, context)));
    return rows;
  },
};

async function rowsAt(prefetch: number, context: BenchContext): Promise<Row[]> {
  const database = await context.servers.mariadb.createDatabase();
  const { seconds, warmUpSeconds } = context;
  const { rabbitmq, mariadb } = context.servers;
  const contender = (name: string, consumer: 'bare' | 'sdk', work: Work): Contender =>
    loadContender(name, () => ({
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
  const plain = await alternate(
    [contender(BARE, 'bare', 'nothing'), contender(SDK, 'sdk', 'nothing')],
    context.rounds,
  );
  const working = await alternate(
    [contender(BY_HAND, 'bare', 'byHand'), contender(ONCE, 'sdk', 'once')],
    context.rounds,
  );
  const sdk = plain.of(SDK);
  const once = working.of(ONCE);
  const toBare = once.perSecond.median / plain.of(BARE).perSecond.median;
  return [
    {
      id: `consume-${prefetch}`,
      title: `Consuming by the SDK, ${prefetch} at a time`,
      unit: '/s',
      value: sdk.perSecond,
      ratio: { of: 'a bare amqplib consumer', value: sdk.ratio, must: 0.8, aim: 0.95 },
      notes: ['quorum queue, filled before; the handler does nothing'],
      runs: sdk.runs,
    },
    {
      id: `consume-once-${prefetch}`,
      title: `Consuming by the SDK with once, ${prefetch} at a time`,
      unit: '/s',
      value: once.perSecond,
      ratio: {
        of: 'amqplib with the same transaction by hand',
        value: once.ratio,
        must: 0.8,
        aim: 0.95,
      },
      notes: [
        'one insert and the note of the message id in one transaction of MariaDB',
        `${toBare.toFixed(2)} of a bare consumer that writes nothing`,
      ],
      runs: once.runs,
    },
  ];
}

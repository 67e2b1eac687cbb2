import { setTimeout as pause } from 'node:timers/promises';
import { type Channel, connect } from 'amqplib';
import { uuidv7 } from 'uuidv7';
import { ROUTING_KEY } from '../loads/queue.js';
import { nothingCommitted } from '../loads/transactions.js';
import { cpuUsed, readCpu } from '../measure/cpu.js';
import { type Run, runLoad } from '../measure/load-process.js';
import { peakMemoryMiB } from '../measure/memory.js';
import { alternate, type Comparison } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import type { Row, SkippedRow } from '../report/row.js';
import type { Broker, StoreKind } from '../servers.js';
import { type BenchContext, DATA_BYTES, nodeLoad, type RowGroup } from './group.js';
import { rateRow } from './rate-row.js';
import { transactionsLoad } from './throughput.js';

/*
 * RabbitMQ is stopped while producers go on: what that does to the broker's memory, and how fast
 * the backlog leaves once RabbitMQ is back. The drain is timed from the first message in the queue to the
 * last: how soon the broker tries to connect again is its back-off, and stands in a note.
 */

const BACKLOG = 200_000;

const CONCURRENCY = 256;

/** A round takes most of a minute: a run of 400,000 operations, and the drain. */
const ROUNDS_MAX = 3;

const PEAK_MIB_MUST = 350;
/** By the rate of transactions at the same concurrency. */
const DRAIN_MUST = 0.8;

const SDK = 'SDK';
const DRAIN = 'drain';

/** 400,000 durable writes on a slow disk. */
const BACKLOG_MS_MAX = 400_000;
const DRAIN_MS_MAX = 120_000;
const RECONNECT_MS_MAX = 30_000;
const POLL_MS = 10;

export const STOPPED_RABBITMQ: RowGroup[] = [
  { name: 'stopped-rabbitmq-mariadb', quick: false, run: (context) => rows(context, 'mariadb') },
  { name: 'stopped-rabbitmq-sqlite', quick: false, run: (context) => rows(context, 'sqlite') },
];

async function rows(context: BenchContext, store: StoreKind): Promise<(Row | SkippedRow)[]> {
  const broker = await context.servers.startBroker({ store });
  try {
    const what = { kind: { way: 'sdk', store }, broker, queueType: 'classic' } as const;
    // Started anew for each run: it would lose its connection in the outage.
    const load = () => transactionsLoad(context, { ...what, concurrency: CONCURRENCY });
    const comparison = await alternate(
      [
        {
          name: SDK,
          async run() {
            await connected(broker);
            return runLoad(load());
          },
        },
        { name: DRAIN, run: () => stopAndDrain(context, store) },
      ],
      Math.min(context.rounds, ROUNDS_MAX),
    );
    return rowsOf(comparison, store);
  } finally {
    await broker.stop();
  }
}

/** The outage before this one cut its connection as well. */
async function connected(broker: Broker): Promise<void> {
  await until('the broker is connected to RabbitMQ', RECONNECT_MS_MAX, async () => {
    const response = await fetch(`${broker.url}/readyz`);
    const { degraded } = (await response.json()) as { degraded?: boolean };
    return degraded === false;
  });
}

/** A fresh broker goes through one outage, so that its peak is of nothing else. */
async function stopAndDrain(context: BenchContext, store: StoreKind): Promise<Run> {
  const { rabbitmq, mariadb } = context.servers;
  const broker = await context.servers.startBroker({ store });
  const processes = {
    broker: broker.pid(),
    ...(store === 'mariadb' ? { mariadb: mariadb.pid() } : {}),
  };
  try {
    const name = `bench-${uuidv7()}`;
    await onChannel(rabbitmq.url, async (channel) => {
      await channel.assertExchange(name, 'topic', { durable: true });
      await channel.assertQueue(name, { durable: true, arguments: { 'x-queue-type': 'classic' } });
      await channel.bindQueue(name, name, ROUTING_KEY);
    });
    let backlog: Run;
    await rabbitmq.server.ctl('stop_app');
    try {
      backlog = await runLoad({
        command: nodeLoad('backlog'),
        settings: {
          broker: broker.url,
          topic: name,
          concurrency: CONCURRENCY,
          transactions: BACKLOG,
          dataBytes: DATA_BYTES,
        },
        processes,
        limitMs: BACKLOG_MS_MAX,
      });
    } finally {
      await rabbitmq.server.ctl('start_app');
    }
    const peakMiBBefore = peakMemoryMiB(broker.pid());
    const drain = await onChannel(rabbitmq.url, async (channel) => {
      const run = await drained(channel, name, { ...processes, rabbitmq: rabbitmq.pid() });
      await nothingCommitted(broker.url);
      await channel.deleteQueue(name);
      await channel.deleteExchange(name);
      return run;
    });
    const peakMiB = peakMemoryMiB(broker.pid());
    return {
      ...drain,
      counts: {
        ...drain.counts,
        acceptedPerSecond: backlog.perSecond,
        ...(peakMiB === undefined ? {} : { peakMiB }),
        ...(peakMiBBefore === undefined ? {} : { peakMiBBefore }),
      },
    };
  } finally {
    await broker.stop();
  }
}

/** From the first look that finds messages in the queue to the one that finds all of them. */
async function drained(
  channel: Channel,
  queue: string,
  processes: Record<string, number>,
): Promise<Run> {
  const held = async () => (await channel.checkQueue(queue)).messageCount;
  const backAt = performance.now();
  let atFirst = 0;
  await until('the first message is in the queue', RECONNECT_MS_MAX, async () => {
    atFirst = await held();
    return atFirst > 0;
  });
  const before = readCpu(processes);
  const startedAt = performance.now();
  await until('the whole backlog is in the queue', DRAIN_MS_MAX, async () => {
    const messages = await held();
    if (messages > BACKLOG) throw new Error(`the queue holds ${messages} of ${BACKLOG} messages`);
    return messages === BACKLOG;
  });
  const seconds = (performance.now() - startedAt) / 1000;
  const after = readCpu(processes);
  const use = before && after ? cpuUsed(before, after) : { micros: {}, foreignPercent: 0 };
  const operations = BACKLOG - atFirst;
  return {
    operations,
    seconds,
    perSecond: operations / seconds,
    latencyMs: {},
    counts: { firstMessageMs: startedAt - backAt },
    cpuMicrosPerOperation: Object.fromEntries(
      Object.entries(use.micros).map(([process, micros]) => [process, micros / operations]),
    ),
    foreignCpuPercent: use.foreignPercent,
  };
}

function rowsOf(comparison: Comparison, store: StoreKind): (Row | SkippedRow)[] {
  const drain = comparison.of(DRAIN);
  const { runs } = drain;
  const on = store === 'mariadb' ? 'MariaDB' : 'SQLite';
  const backlog = BACKLOG.toLocaleString('en-US');
  const counted = (name: string) => runs.flatMap(({ counts }) => counts?.[name] ?? []);
  const median = (name: string) => Math.round(summarize(counted(name)).median);
  const sdkRate = Math.round(comparison.of(SDK).perSecond.median).toLocaleString('en-US');
  const rate = rateRow(
    {
      id: `stopped-rabbitmq-drain-${store}`,
      title: `Drain of ${backlog} transactions committed while RabbitMQ was stopped, ${on}`,
      notes: [
        `while it was stopped: ${median('acceptedPerSecond').toLocaleString('en-US')} a second`,
        `transactions with RabbitMQ there, ${CONCURRENCY} concurrent: ${sdkRate} a second`,
        `the first message came ${median('firstMessageMs')} ms after RabbitMQ was back`,
      ],
    },
    drain,
    { words: 'transactions by the SDK', goal: { must: DRAIN_MUST } },
  );
  const title = `Peak memory of the broker with ${backlog} transactions committed while RabbitMQ was stopped, ${on}`;
  const id = `stopped-rabbitmq-peak-${store}`;
  const peaks = counted('peakMiB');
  if (peaks.length === 0) {
    return [rate, { id, title, skipped: 'this system does not tell the peak of a process' }];
  }
  const value = summarize(peaks);
  const notes = [`${median('peakMiBBefore')} MiB before RabbitMQ was back`];
  const goal = { must: PEAK_MIB_MUST, better: 'lower' } as const;
  return [rate, { id, title, unit: 'MiB', value, goal, notes, runs }];
}

async function onChannel<T>(url: string, work: (channel: Channel) => Promise<T>): Promise<T> {
  const connection = await connect(url, { noDelay: true });
  try {
    return await work(await connection.createChannel());
  } finally {
    await connection.close();
  }
}

async function until(
  what: string,
  limitMs: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const startedAt = performance.now();
  while (!(await condition())) {
    if (performance.now() - startedAt > limitMs) {
      throw new Error(`waited ${limitMs} ms in vain until ${what}`);
    }
    await pause(POLL_MS);
  }
}

import { setTimeout as pause } from 'node:timers/promises';
import { type LoadOptions, type Run, runLoad } from '../measure/load-process.js';
import { alternate, type Comparison, type Contended, ratios } from '../measure/pairs.js';
import { summarize } from '../measure/quantiles.js';
import { dtmUnavailable, startDtm } from '../peers/dtm.js';
import { pausable } from '../peers/pausable.js';
import { type RocketmqOptions, rocketmqUnavailable, startRocketmq } from '../peers/rocketmq.js';
import type { Goal, Row, SkippedRow } from '../report/row.js';
import { type BenchContext, DATA_BYTES, type RowGroup } from './group.js';
import { QUEUE_TYPE } from './local-transaction-runs.js';
import { rateRow } from './rate-row.js';
import { barePublishing, transactions } from './throughput.js';

/*
 * EscrowMQ beside transaction coordinators that promise nearly the same: prepared, committed and
 * delivered transactions a second, in one run and by turns, with bare confirmed publishing for
 * reference. EscrowMQ and DTM store in the same MariaDB and publish to the same RabbitMQ; RocketMQ
 * is both by itself. Whoever is not measured stands still.
 */

const CONCURRENCIES = [64, 256];

const ESCROW = 'EscrowMQ';
const BARE = 'Bare publishing';

/** RocketMQ writes down 3 s later which half messages are done with; asleep it would check them. */
const ROCKETMQ_SETTLE_MS = 4_000;

interface Peer {
  /** Of its rows. */
  id: string;
  name: string;
  /** For EscrowMQ's rate by this peer's. */
  goal: Goal;
  /** What else a reader must know to judge that ratio. */
  notes: string[];
  /** Between the end of a run and its standing still. */
  settleMs: number;
  /** @returns why it can't be measured here, or undefined */
  unavailable(): Promise<string | undefined>;
  start(context: BenchContext): Promise<Started>;
}

interface Started extends Pick<LoadOptions, 'command' | 'settings' | 'processes'> {
  notes: string[];
  stop(): Promise<void>;
}

/** A peer that was started, and stands still except in its turns. */
interface RunningPeer extends Pick<Peer, 'id' | 'name' | 'goal' | 'notes'> {
  /** On its own row. */
  ownNotes: string[];
  run(concurrency: number): Promise<Run>;
  stop(): Promise<void>;
}

const DTM: Peer = {
  id: 'dtm',
  name: 'DTM',
  goal: { must: 5, aim: 10 },
  notes: [],
  settleMs: 0,
  unavailable: dtmUnavailable,
  async start({ servers: { rabbitmq, mariadb } }) {
    const started = await startDtm({ mysql: mariadb.url, rabbitmq: rabbitmq.url });
    return {
      ...started,
      settings: { ...started.settings, queueType: QUEUE_TYPE },
      processes: { ...started.processes, rabbitmq: rabbitmq.pid(), mariadb: mariadb.pid() },
    };
  },
};

const rocketmq = (flush: RocketmqOptions['flush'], goal: Goal): Peer => ({
  id: flush === 'SYNC_FLUSH' ? 'rocketmq-sync' : 'rocketmq-async',
  name: `RocketMQ, ${flush}`,
  goal,
  notes: ['RocketMQ never acknowledges a commit; EscrowMQ answers one when it is durable'],
  settleMs: ROCKETMQ_SETTLE_MS,
  unavailable: rocketmqUnavailable,
  start: () => startRocketmq({ flush }),
});

/** With ASYNC_FLUSH it promises less than EscrowMQ does, so nothing is to be reached there. */
const PEERS: Peer[] = [
  DTM,
  rocketmq('SYNC_FLUSH', { must: 0.5, aim: 1 }),
  rocketmq('ASYNC_FLUSH', {}),
];

export const peers: RowGroup = {
  name: 'peers',
  quick: false,
  async run(context) {
    const running: RunningPeer[] = [];
    const rows: (Row | SkippedRow)[] = [];
    const broker = await context.servers.startBroker({ store: 'mariadb' });
    try {
      const escrow = { kind: { way: 'sdk', store: 'mariadb' }, broker } as const;
      for (const peer of PEERS) {
        const skipped = await peer.unavailable();
        if (skipped === undefined) running.push(await start(peer, context));
        else rows.push({ id: peer.id, title: peer.name, skipped });
      }
      for (const concurrency of CONCURRENCIES) {
        const common = { queueType: QUEUE_TYPE, concurrency } as const;
        const comparison = await alternate(
          [
            { ...transactions(context, { ...common, ...escrow }), name: ESCROW },
            ...running.map(({ name, run }) => ({ name, run: () => run(concurrency) })),
            { ...barePublishing(context, common), name: BARE },
          ],
          context.rounds,
        );
        rows.push(...rowsOf(comparison, running, concurrency));
      }
      return rows;
    } finally {
      for (const peer of running) await peer.stop();
      await broker.stop();
    }
  },
};

async function start(peer: Peer, context: BenchContext): Promise<RunningPeer> {
  process.stderr.write(`  starting ${peer.name}\n`);
  const other = new Set([context.servers.rabbitmq.pid(), context.servers.mariadb.pid()]);
  const { command, settings, processes, notes, stop } = await peer.start(context);
  const itsOwn = pausable(Object.values(processes).filter((pid) => !other.has(pid)));
  itsOwn.pause();
  return {
    ...peer,
    ownNotes: notes,
    async run(concurrency) {
      itsOwn.resume();
      const run = await runLoad({
        command,
        settings: { ...settings, ...common(context, concurrency) },
        processes,
      });
      await pause(peer.settleMs);
      itsOwn.pause();
      return run;
    },
    async stop() {
      itsOwn.end();
      await stop();
    },
  };
}

const common = ({ seconds }: BenchContext, concurrency: number) => ({
  concurrency,
  seconds,
  dataBytes: DATA_BYTES,
});

function rowsOf(
  comparison: Comparison,
  running: readonly RunningPeer[],
  concurrency: number,
): Row[] {
  const escrow = comparison.of(ESCROW);
  const own = (id: string, contended: Contended, notes: string[]) =>
    rateRow(
      {
        id: `peers-${id}-${concurrency}`,
        title: `${contended.name}, ${concurrency} at a time`,
        notes: [...notes, latencyNote(contended.runs)],
      },
      contended,
    );
  return [
    own('escrow', escrow, [
      `SDK and MariaDB; measured until RabbitMQ confirmed all, ${QUEUE_TYPE} queue`,
    ]),
    ...running.map(({ id, name, ownNotes }) => {
      const contended = comparison.of(name);
      return own(id, contended, [...ownNotes, ...countNotes(contended.runs)]);
    }),
    own('bare', comparison.of(BARE), [`confirmed publishing alone, ${QUEUE_TYPE} queue`]),
    ...running.map((peer) => rowBeside(peer, { escrow, other: comparison.of(peer.name) })),
  ];

  function rowBeside(
    { id, name, goal, notes }: RunningPeer,
    runs: { escrow: Contended; other: Contended },
  ): Row {
    return {
      id: `escrow-beside-${id}-${concurrency}`,
      title: `${ESCROW} beside ${name}, ${concurrency} at a time`,
      unit: '/s',
      value: runs.escrow.perSecond,
      ratio: {
        ...goal,
        of: name,
        value: summarize(ratios(runs.escrow.runs, runs.other.runs, (run) => run.perSecond)),
      },
      notes: [
        ...notes,
        `CPU of all processes per transaction, µs: ${[runs.escrow, runs.other].map(cpuOf).join(', ')}`,
      ],
      runs: runs.escrow.runs,
    };
  }
}

/** "p50/p99 in ms: prepare 3.1/12.0, commit 3.5/14.2". */
function latencyNote(runs: readonly Run[]): string {
  const steps = Object.keys(runs[0]?.latencyMs ?? {});
  const median = (step: string, quantile: 'p50' | 'p99') =>
    summarize(runs.map(({ latencyMs }) => latencyMs[step]?.[quantile] ?? Number.NaN)).median;
  const parts = steps.map(
    (step) => `${step} ${median(step, 'p50').toFixed(1)}/${median(step, 'p99').toFixed(1)}`,
  );
  return `p50/p99 in ms: ${parts.join(', ')}`;
}

/** What loads of peers count beside their operations, such as calls made again, where there was any. */
function countNotes(runs: readonly Run[]): string[] {
  const names = Object.keys(runs[0]?.counts ?? {});
  const sums = names.map((name) => ({
    name,
    sum: runs.reduce((total, { counts = {} }) => total + (counts[name] ?? 0), 0),
  }));
  const found = sums.filter(({ sum }) => sum > 0);
  if (found.length === 0) return [];
  return [`in all runs: ${found.map(({ name, sum }) => `${sum} ${name}`).join(', ')}`];
}

/** "DTM 3800", the load included. */
function cpuOf({ name, runs }: Contended): string {
  const sums = runs.map(({ cpuMicrosPerOperation }) =>
    Object.values(cpuMicrosPerOperation).reduce((sum, micros) => sum + micros, 0),
  );
  return `${name} ${summarize(sums).median.toFixed(0)}`;
}

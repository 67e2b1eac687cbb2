import { setTimeout as pause } from 'node:timers/promises';
import { uuidv7 } from 'uuidv7';
import { z } from 'zod';
import { ConsumerKind, monotonicMs, startArrivals } from './consume-arrivals.js';
import { CommonSettings, closedLoops, Latencies, serveLoad, warmUpOf } from './load.js';
import { openWay, WaySettings } from './local-transaction-ways.js';

/*
 * How long after the local COMMIT a message is with its consumer, which is a process of its own.
 * The consumer is bare amqplib, or the consumer SDK and its handler.
 */
const Settings = CommonSettings.extend({
  ...WaySettings.shape,
  rabbitmq: z.string(),
  consumer: ConsumerKind,
  /** Transactions a second, evenly spaced. @default as many as the loops manage */
  perSecond: z.number().positive().optional(),
});

type Settings = z.output<typeof Settings>;

await serveLoad(Settings, async (settings: Settings) => {
  const topic = `bench-${uuidv7()}`;
  const arrivals = await startArrivals({
    rabbitmq: settings.rabbitmq,
    kind: settings.consumer,
    topic,
  });
  const way = await openWay(settings, topic);
  const committedAt: number[] = [];

  async function run(paced: Settings) {
    const transactions = new Latencies();
    const latencies = new Latencies();
    const startedAt = performance.now();
    const operations = await loops(paced, async () => {
      const number = committedAt.push(Number.NaN) - 1;
      const calledAt = performance.now();
      await way.place(number, () => {
        committedAt[number] = monotonicMs();
      });
      transactions.add(performance.now() - calledAt);
    });
    for (const { number, atMs } of await arrivals.next(operations)) {
      const latency = atMs - (committedAt[number] ?? Number.NaN);
      if (Number.isNaN(latency)) throw new Error(`message ${number} came before its COMMIT`);
      latencies.add(latency);
    }
    return {
      operations,
      seconds: (performance.now() - startedAt) / 1000,
      latencyMs: {
        transaction: transactions.quantiles(),
        commitToConsumer: latencies.quantiles(),
      },
    };
  }

  // Without the pace: a moderate rate would leave the code uncompiled.
  await run({ ...warmUpOf(settings), perSecond: undefined });
  await way.idle();
  return {
    run: () => run(settings),
    reset: () => way.idle(),
    async close() {
      await way.close();
      await arrivals.close();
    },
  };
});

/** Closed loops; with a pace, each loop waits for its next turn. */
async function loops(settings: Settings, operation: () => Promise<void>): Promise<number> {
  const { concurrency, seconds, perSecond } = settings;
  if (perSecond === undefined) return closedLoops(settings, operation);
  const startedAt = performance.now();
  const turns = Math.ceil(seconds * perSecond);
  const loop = async (_: unknown, first: number) => {
    for (let turn = first; turn < turns; turn += concurrency) {
      const waitMs = startedAt + (turn / perSecond) * 1000 - performance.now();
      if (waitMs > 0) await pause(waitMs);
      await operation();
    }
  };
  await Promise.all(Array.from({ length: concurrency }, loop));
  return turns;
}

import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';

/*
 * A consumer in a process of its own that notes when each message arrives; consume-arrivals-main.ts
 * is that process, and this is the load's side.
 */

/** Bare amqplib, or a handler of the consumer SDK. */
export const ConsumerKind = z.enum(['bare', 'sdk']);

export interface ArrivalsSettings {
  rabbitmq: string;
  kind: z.output<typeof ConsumerKind>;
  /** Its queue is bound to all of it. */
  topic: string;
}

export interface Arrival {
  /** The `number` in the message's data. */
  number: number;
  /** On the clock of `monotonicMs`. */
  atMs: number;
}

export interface Arrivals {
  /** Resolves with the next so many. @throws Error when a message came twice, or none comes any more */
  next(count: number): Promise<Arrival[]>;
  close(): Promise<void>;
}

/** The machine's monotonic clock, which all of its processes share, in milliseconds. */
export const monotonicMs = () => Number(process.hrtime.bigint()) / 1e6;

const MAIN = fileURLToPath(new URL('./consume-arrivals-main.js', import.meta.url));
/** The slowest relay takes some seconds for what a run of full rate has left it. */
const WAIT_MS_MAX = 60_000;

/** Resolves when deliveries flow. */
export async function startArrivals(settings: ArrivalsSettings): Promise<Arrivals> {
  const child = fork(MAIN, [JSON.stringify(settings)], { serialization: 'advanced' });
  await reply(child);
  return {
    async next(count) {
      child.send(count);
      const arrivals = (await reply(child)) as Arrival[];
      const numbers = new Set(arrivals.map(({ number }) => number));
      if (numbers.size < count) throw new Error(`${count - numbers.size} messages came twice`);
      return arrivals;
    },
    async close() {
      const ended = once(child, 'exit');
      child.disconnect();
      await ended;
    },
  };
}

async function reply(child: ChildProcess): Promise<unknown> {
  const waiting = new AbortController();
  const { signal } = waiting;
  const timer = setTimeout(() => waiting.abort(), WAIT_MS_MAX);
  const ended = once(child, 'exit', { signal }).then(([code]) => {
    throw new Error(`the consumer ended with exit code ${code}`);
  });
  try {
    const [message] = await Promise.race([once(child, 'message', { signal }), ended]);
    return message;
  } finally {
    clearTimeout(timer);
    waiting.abort();
    // The wait for its end was given up with the signal.
    ended.catch(() => {});
  }
}

import { AsyncLocalStorage } from 'node:async_hooks';
import type { LocalDatabase } from './database.js';
import {
  afterPurge,
  firstDelayMs,
  NO_PAST,
  type Purged,
  pauseMsAfter,
} from './housekeeping-plan.js';

/*
 * Deletes old rows of the SDKs' tables beside the work of a service: one loop for each table of each
 * database in a process.
 *
 * What it guarantees: only rows that a purge by hand would take are taken, a portion at a time, each in
 * a short session of its own and with a pause after it. No loop keeps a process alive, outlives the pool
 * that it purges through, or throws at anybody.
 *
 * What it does not: that instances purge by turns. None has to: a portion is chosen without locks and
 * deleted by its keys, so that of two who chose the same rows one deletes them and the other finds
 * nothing. A crash at any step leaves rows for the next purge.
 */

/** What deletes old rows until it is stopped. */
export interface Housekeeping {
  /**
   * Ends it.
   *
   * @returns once a purge under way has ended, which is after the rows of one statement; never rejects
   */
  stop(): Promise<void>;
}

/** What there is to tell of a purge. */
export type HousekeepingNews =
  /** The first rows were looked at, and from now on old ones go. Said once. */
  | { news: 'on' }
  | {
      news: 'failed';
      /** What was thrown. */
      error: unknown;
    };

/** The purge of one table. */
export interface Chore {
  /** Where the table is. */
  database: LocalDatabase<unknown>;
  /** Its name. */
  table: string;
  /** Milliseconds from the end of a purge to the next one. */
  everyMs: number;
  /** Deletes portion by portion; yields how many rows each one had. */
  portions(): AsyncIterable<number>;
  /** Must not throw. */
  tell(news: HousekeepingNews): void;
}

/** What the loop itself needs: for tests. */
export interface HousekeepingDeps {
  /** Monotonic milliseconds. */
  now(): number;
  /** From 0 to 1. */
  random(): number;
  /**
   * Waits for that many milliseconds, or until the signal is aborted.
   * @returns false when the signal was aborted before the time was over
   */
  sleep(delayMs: number, signal: AbortSignal): Promise<boolean>;
}

const REAL: HousekeepingDeps = {
  now: () => performance.now(),
  random: Math.random,
  sleep: (delayMs, signal) =>
    new Promise((resolve) => {
      const end = (isOver: boolean) => {
        clearTimeout(timer);
        signal.removeEventListener('abort', onAbort);
        resolve(isOver);
      };
      const onAbort = () => end(false);
      const timer = setTimeout(() => end(true), delayMs);
      timer.unref();
      if (signal.aborted) onAbort();
      else signal.addEventListener('abort', onAbort);
    }),
};

interface Loop extends Housekeeping {
  /** False once it has been stopped, or has ended by itself. */
  readonly isRunning: boolean;
}

/** By what the service itself holds, so that two adapters of one pool keep one house. */
const houses = new WeakMap<object, Map<string, Loop>>();

/**
 * Begins with a table, unless that is being done already.
 *
 * @param mode `'replace'` puts an end to the loop that is there: its settings are not these
 */
export function keepHouse(
  chore: Chore,
  mode: 'keep' | 'replace',
  deps: HousekeepingDeps = REAL,
): Housekeeping {
  const house = chore.database.on ?? chore.database;
  const tables = houses.get(house) ?? new Map<string, Loop>();
  houses.set(house, tables);
  const running = tables.get(chore.table);
  if (running?.isRunning === true) {
    if (mode === 'keep') return running;
    void running.stop();
  }
  const loop = outside(() => startLoop(chore, deps));
  tables.set(chore.table, loop);
  return loop;
}

/** Whoever ensures a table inside a request has a context, which the statements of years are no part of. */
const outside: <T>(work: () => T) => T = AsyncLocalStorage.snapshot();

function startLoop(chore: Chore, deps: HousekeepingDeps): Loop {
  const stop = new AbortController();
  let isRunning = true;
  const ended = run(chore, stop.signal, deps).finally(() => {
    isRunning = false;
  });
  return {
    get isRunning() {
      return isRunning && !stop.signal.aborted;
    },
    async stop() {
      stop.abort();
      await ended;
    },
  };
}

async function run(chore: Chore, signal: AbortSignal, deps: HousekeepingDeps): Promise<void> {
  const { everyMs, tell } = chore;
  const announce = once(() => tell({ news: 'on' }));
  let delayMs = firstDelayMs(deps.random());
  let past = NO_PAST;
  while (await deps.sleep(delayMs, signal)) {
    const purged = await purge(chore, announce, signal, deps);
    const at = { now: deps.now(), chance: deps.random(), everyMs };
    const next = afterPurge(past, purged, at);
    if (next.next === 'end') return;
    if (purged.ended === 'failed' && next.isTold) tell({ news: 'failed', error: purged.error });
    ({ delayMs, past } = next);
  }
}

async function purge(
  chore: Chore,
  announce: () => void,
  signal: AbortSignal,
  { now, sleep }: HousekeepingDeps,
): Promise<Purged> {
  try {
    let startedAt = now();
    for await (const _rows of chore.portions()) {
      announce();
      if (!(await sleep(pauseMsAfter(now() - startedAt), signal))) break;
      startedAt = now();
    }
    announce();
    return { ended: 'done' };
  } catch (error) {
    return { ended: 'failed', error };
  }
}

function once(work: () => void): () => void {
  let isDone = false;
  return () => {
    if (isDone) return;
    isDone = true;
    work();
  };
}

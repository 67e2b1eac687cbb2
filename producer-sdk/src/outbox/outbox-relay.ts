import { setTimeout as sleep } from 'node:timers/promises';
import type { LocalDatabase } from '@escrowmq/database';
import { type DatabaseInput, databaseOf, within } from '@escrowmq/database';
import { EscrowError, optionNames, refuseUnknown, textOfError } from '@escrowmq/protocol';
import { createBrokerHttp } from '../client/broker-http.js';
import { type Logger, loggerOf } from '../logger.js';
import {
  CONNECTION_OPTIONS,
  type ProducerOptions,
  parseLimit,
  parseProducerOptions,
} from '../options.js';
import type { Producer } from '../producer-api.js';
import { type OutboxLink, outboxLinkOf } from './outbox-link.js';
import { type PassCounts, type PassDeps, type PassResult, relayOnce } from './outbox-pass.js';
import { OUTBOX_STATEMENTS } from './outbox-sql.js';
import { OUTBOX_LIMITS, unparkAll } from './outbox-table.js';

/** Where a relay looks, and how often. */
interface RelayOptions {
  /**
   * The database with the outbox: a pool of mysql2/promise, or what an adapter made.
   * @default none: `databases` has them
   */
  database?: DatabaseInput;
  /**
   * Several databases, by a name of your own for each; they are relayed side by side.
   * @default none: `database` is the only one
   */
  databases?: Record<string, DatabaseInput>;
  /**
   * Milliseconds between two looks at an outbox that had something to send; an idle one is looked at
   * less and less often, down to once in five times this.
   * @default 200
   */
  pollMs?: number;
  /**
   * Milliseconds for which a relay has what it took; what it has not marked by then is sent again.
   * @default 30000: the call of the broker and every statement run to their limits before
   */
  leaseMs?: number;
  /** Is told what was not sent, and why. @default the producer's, or stderr */
  logger?: Logger;
}

/** Options of `createOutboxRelay`: with a producer, or with a way to the broker of its own. */
export type OutboxRelayOptions = RelayOptions &
  (
    | {
        /** Sends in the name of this producer. Close the relay before it. */
        producer: Producer;
      }
    | ({
        /**
         * Without one the relay has its own way to the broker, as a process of its own has.
         * @default none
         */
        producer?: undefined;
      } & Pick<
        ProducerOptions,
        'brokers' | 'producerGroup' | 'apiKey' | 'requestTimeoutMs' | 'closeTimeoutMs'
      >)
  );

/** How an outbox stands. */
export interface OutboxStats {
  /** Number of rows that are to be sent, those under way included. */
  pending: number;
  /** Milliseconds since the oldest of them was written; 0 when there is none. */
  oldestMs: number;
  /** Number of rows that the broker has refused for good. */
  parked: number;
  /** Number of rows that this relay has sent since it was made. */
  sent: number;
  /** Why the last pass left something unsent; absent when it did not. */
  failure?: unknown;
}

/** Sends what local transactions have left in the outbox. */
export interface OutboxRelay {
  /** Begins to relay; resolves nothing and never throws: what goes wrong is logged and tried again. */
  start(): void;
  /**
   * One pass over each database, whether started or not: up to 500 rows of each.
   *
   * @returns how many rows were sent, parked and put off
   * @throws the database's error; INVALID_CONFIGURATION when the table is missing
   */
  runOnce(): Promise<PassCounts>;
  /** Asks the databases; so put it on a page or behind a metric, not into a loop. */
  stats(): Promise<OutboxStats>;
  /** Has everything parked sent again, once what was wrong is put right; returns how many. */
  retryParked(): Promise<number>;
  /** Ends after the passes under way. */
  close(): Promise<void>;
}

const RELAY_OPTIONS = [
  ...optionNames<RelayOptions>({
    database: true,
    databases: true,
    pollMs: true,
    leaseMs: true,
    logger: true,
  }),
  ...['producer', ...CONNECTION_OPTIONS, 'requestTimeoutMs', 'closeTimeoutMs'],
];

const POLL_MS = 200;
const LEASE_MS = 30_000;
/** An idle outbox is looked at once in so many times `pollMs`. */
const IDLE_FACTOR_MAX = 5;
const IDLE_GROWTH = 1.5;
/** After a failure. A call of the broker has tried for seconds by then. */
const FAILURE_PAUSE_MS = 1_000;
/** The same failure is logged again after a minute. */
const REPEAT_LOG_MS = 60_000;

/**
 * Sends what local transactions have left in the outbox: what their own process could not send,
 * because the broker did not answer or the process was gone. Run at least one for each database and
 * producer group with topics in outbox mode, in the service or as the command `escrow-outbox-relay`;
 * any number may run side by side. Without one such messages stay where they are.
 *
 * What the broker refuses for good is parked: kept, logged as an error, counted in `stats`, and not
 * tried again until `retryParked()`. A wrong API key or a producer group that is not registered parks
 * nothing: the relay goes on trying, and says so.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION or INVALID_NAME
 * @example
 * const relay = createOutboxRelay({ producer, database: pool });
 * relay.start();
 * process.once('SIGTERM', async () => {
 *   await relay.close();
 *   await producer.close();
 * });
 */
export function createOutboxRelay(options: OutboxRelayOptions): OutboxRelay {
  refuseUnknown(options, RELAY_OPTIONS, 'createOutboxRelay');
  const databases = parseDatabases(options);
  const pollMs = parseLimit('pollMs', options.pollMs ?? POLL_MS);
  const leaseMs = parseLimit('leaseMs', options.leaseMs ?? LEASE_MS);
  const { http, settings } = linkOf(options);
  const logger = options.logger === undefined ? settings.logger : loggerOf(options.logger);
  const stop = new AbortController();
  const underWay = new Set<Promise<unknown>>();
  const failures = new Map<string, unknown>();
  let sent = 0;
  let isStarted = false;

  const depsOf = (database: LocalDatabase<unknown>): PassDeps => ({
    database,
    producerGroup: settings.producerGroup,
    http,
    requestTimeoutMs: settings.requestTimeoutMs,
    leaseMs,
    logger,
  });

  /** Keeps `close` waiting for it; whoever called it gets its error. */
  function track<T>(work: Promise<T>): Promise<T> {
    underWay.add(work);
    const done = () => void underWay.delete(work);
    work.then(done, done);
    return work;
  }

  async function pass(name: string, database: LocalDatabase<unknown>): Promise<PassResult> {
    try {
      const result = await track(relayOnce(depsOf(database)));
      sent += result.sent;
      if (result.failure === undefined) failures.delete(name);
      else failures.set(name, result.failure);
      return result;
    } catch (error) {
      failures.set(name, error);
      throw error;
    }
  }

  async function loop(name: string, database: LocalDatabase<unknown>): Promise<void> {
    const complain = createComplaint(logger, name);
    let idleMs = pollMs;
    while (!stop.signal.aborted) {
      const result = await pass(name, database).catch((failure: unknown) => ({
        isIdle: false,
        sent: 0,
        failure,
      }));
      complain(result.failure);
      if (result.failure !== undefined) {
        await pause(FAILURE_PAUSE_MS);
      } else if (result.isIdle) {
        await pause(idleMs);
        idleMs = Math.min(idleMs * IDLE_GROWTH, pollMs * IDLE_FACTOR_MAX);
      } else {
        // More may be due already: a batch is bounded.
        idleMs = pollMs;
      }
    }
  }

  async function pause(delayMs: number): Promise<void> {
    try {
      await sleep(delayMs, undefined, { signal: stop.signal });
    } catch (error) {
      if (!stop.signal.aborted) throw error;
    }
  }

  return {
    start() {
      if (isStarted || stop.signal.aborted) return;
      isStarted = true;
      for (const [name, database] of databases) void track(loop(name, database));
    },
    async runOnce() {
      const results = await Promise.all([...databases].map(([name, each]) => pass(name, each)));
      const sum = (key: keyof PassCounts) =>
        results.reduce((total, result) => total + result[key], 0);
      return { sent: sum('sent'), parked: sum('parked'), putOff: sum('putOff') };
    },
    async stats() {
      const counts = await Promise.all(
        [...databases.values()].map((each) => countIn(each, settings.producerGroup)),
      );
      const [failure] = failures.values();
      return {
        pending: counts.reduce((total, { pending }) => total + pending, 0),
        oldestMs: Math.max(...counts.map(({ oldestMs }) => oldestMs)),
        parked: counts.reduce((total, { parked }) => total + parked, 0),
        sent,
        ...(failure === undefined ? {} : { failure }),
      };
    },
    async retryParked() {
      let retried = 0;
      for (const each of databases.values()) {
        retried += await unparkAll(each, settings.producerGroup);
      }
      return retried;
    },
    async close() {
      stop.abort();
      // What takes longer is sent again when its lease is over, by whoever relays then.
      await within(Promise.allSettled(underWay), settings.closeTimeoutMs, {
        error: () => new Error('closing'),
      }).catch(() => undefined);
      if (options.producer === undefined) await http.close();
    },
  };
}

function linkOf(options: OutboxRelayOptions): OutboxLink {
  if (options.producer !== undefined) return outboxLinkOf(options.producer);
  const settings = parseProducerOptions(options);
  return { settings, http: createBrokerHttp(settings) };
}

/** By name; the only one has none. */
function parseDatabases({
  database,
  databases,
}: RelayOptions): Map<string, LocalDatabase<unknown>> {
  if ((database === undefined) === (databases === undefined)) {
    throw new EscrowError('INVALID_CONFIGURATION', 'give either database or databases');
  }
  const given = database === undefined ? { ...databases } : { '': database };
  const found = new Map(Object.entries(given).map(([name, each]) => [name, databaseOf(each)]));
  if (found.size > 0) return found;
  throw new EscrowError('INVALID_CONFIGURATION', 'databases names none');
}

const COUNT_COLUMNS = { state: 'text', counted: 'number', age: 'number' } as const;

async function countIn(
  database: LocalDatabase<unknown>,
  producerGroup: string,
): Promise<{ pending: number; oldestMs: number; parked: number }> {
  const { count } = OUTBOX_STATEMENTS[database.dialect];
  const rows = await database.session(
    (executor) => executor.select(count, COUNT_COLUMNS, [producerGroup]),
    OUTBOX_LIMITS,
  );
  const of = (state: string) => rows.find((row) => row.state === state);
  return {
    pending: of('unsent')?.counted ?? 0,
    oldestMs: Math.max(0, of('unsent')?.age ?? 0),
    parked: of('parked')?.counted ?? 0,
  };
}

/** Logs a failure when it begins and once a minute while it lasts. */
function createComplaint(logger: Logger, name: string): (failure: unknown) => void {
  let said: string | undefined;
  let saidAt = 0;
  return (failure) => {
    if (failure === undefined) {
      said = undefined;
      return;
    }
    const saying = textOfError(failure);
    if (saying === said && performance.now() - saidAt < REPEAT_LOG_MS) return;
    said = saying;
    saidAt = performance.now();
    logger.error(
      { ...(name === '' ? {} : { database: name }), error: failure },
      'the outbox could not be relayed; nothing is lost, it is tried again',
    );
  };
}

import assert from 'node:assert/strict';
import { EscrowError, LIMITS, optionNames, refuseUnknown } from '@escrowmq/protocol';
import { parseProducerOptions } from '../options.js';
import {
  type CheckDecider,
  type CheckDecisionOptions,
  createCheckDecider,
  DECISION_OPTIONS,
} from './check-decider.js';
import { createPolledBroker, type PolledBroker } from './check-polled-broker.js';

/**
 * Fetches checks instead of being called: for producers that nobody can call, behind NAT, in a
 * function, on a laptop. The producer group is registered without check URLs, and the broker hands
 * its checks to whoever polls for them. They are decided as a check handler decides them, and need
 * no signature: the connection is the producer's own, with its API key.
 *
 * Any number of instances may poll side by side; each check goes to one of them. One that dies with
 * a check in its hands answers nothing, and the broker asks again.
 */
export interface CheckPollerOptions extends CheckDecisionOptions {
  /**
   * The addresses of all broker instances, because a check waits at the instance that claimed it.
   * An address that leads to any of them will do as well: an answer counts at each.
   */
  brokers: string[];
  /** The group whose checks are polled. */
  producerGroup: string;
  /** Sent as a bearer token. @default none: a broker on loopback may go without */
  apiKey?: string;
  /**
   * How many checks are decided at a time, for each broker address. Each takes one database
   * connection for a moment. @default 8: the broker's own default for calls to a check endpoint
   */
  concurrencyMax?: number;
  /**
   * How long one poll waits at the broker for a check, in milliseconds.
   * @default 30000: the most; less where a proxy cuts connections sooner
   */
  waitMs?: number;
}

/** Fetches checks from the brokers and answers them. */
export interface CheckPoller {
  /** Polls from now on, until `close`. */
  start(): void;
  /**
   * One poll at every broker, for a function that runs by the clock, and for tests. Not beside
   * `start`. Resolves when what is due is answered.
   *
   * @param options.waitMs how long to wait for a first check, in milliseconds @default 0: takes
   *   what is due already
   * @returns how many checks were answered
   * @throws {EscrowError} the refusal of a broker, or BROKER_UNREACHABLE; the others were polled
   */
  runOnce(options?: {
    /** How long to wait for a first check, in milliseconds. @default 0: takes what is due already */ waitMs?: number;
  }): Promise<number>;
  /** Polls no more, waits until the checks under way are answered, and closes the connections. */
  close(): Promise<void>;
}

const POLLER_OPTIONS = optionNames<Omit<CheckPollerOptions, keyof CheckDecisionOptions>>({
  brokers: true,
  producerGroup: true,
  apiKey: true,
  concurrencyMax: true,
  waitMs: true,
});

const CONCURRENCY_DEFAULT = 8;

/**
 * Makes a poller. It does nothing before `start` or `runOnce`.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION or INVALID_NAME
 * @example
 * const poller = createCheckPoller({ brokers, producerGroup: 'accounts', apiKey, database: pool });
 * poller.start();
 * process.once('SIGTERM', () => void poller.close());
 */
export function createCheckPoller(options: CheckPollerOptions): CheckPoller {
  refuseUnknown(options, [...POLLER_OPTIONS, ...DECISION_OPTIONS], 'createCheckPoller');
  return createPollerOf(createCheckDecider(options), options);
}

/** A poller of any decider. */
export function createPollerOf(
  decider: CheckDecider,
  options: Omit<CheckPollerOptions, keyof CheckDecisionOptions>,
): CheckPoller {
  const concurrencyMax = parseWithin(
    'concurrencyMax',
    options.concurrencyMax ?? CONCURRENCY_DEFAULT,
    [1, LIMITS.checksPerPollMax],
  );
  // A loop of polls that do not wait would be nothing but load.
  const waitMs = parseWithin('waitMs', options.waitMs ?? LIMITS.waitMsMax, [1, LIMITS.waitMsMax]);
  const { logger } = decider;
  const settings = parseProducerOptions({ ...options, logger });
  const brokers = settings.brokerOrigins.map((origin) =>
    createPolledBroker({
      decider,
      concurrencyMax,
      settings: { ...settings, brokerOrigins: [origin] },
    }),
  );
  let state: 'new' | 'started' | 'closed' = 'new';

  return {
    start() {
      assert(state !== 'closed', 'this poller is closed; make a new one');
      if (state === 'started') return;
      state = 'started';
      for (const broker of brokers) broker.keepPolling(waitMs);
    },
    async runOnce(options = {}) {
      refuseUnknown(options, ['waitMs'], 'runOnce');
      const { waitMs: onceWaitMs = 0 } = options;
      assert(state === 'new', `runOnce is for a poller that is not started; this one is ${state}`);
      return pollEach(brokers, parseWithin('waitMs', onceWaitMs, [0, LIMITS.waitMsMax]));
    },
    async close() {
      state = 'closed';
      await Promise.all(brokers.map((broker) => broker.close()));
    },
  };
}

/** Polls all of them once; the first failure is thrown when every one has ended. */
async function pollEach(brokers: PolledBroker[], waitMs: number): Promise<number> {
  const polled = await Promise.allSettled(brokers.map((broker) => broker.pollOnce(waitMs)));
  let answered = 0;
  for (const result of polled) {
    if (result.status === 'rejected') throw result.reason;
    answered += result.value;
  }
  return answered;
}

function parseWithin(name: string, value: number, [min, max]: [number, number]): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `${name} is ${value}; it must be a whole number from ${min} to ${max}`,
  );
}

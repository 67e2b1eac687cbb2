import {
  EscrowError,
  kindOf,
  LIMITS,
  optionNames,
  ProducerGroupName,
  parse,
  refuseUnknown,
  Topic,
  textOfError,
} from '@escrowmq/protocol';
import type { Logger } from './logger.js';
import { loggerOf } from './logger.js';
import type { Tracing } from './tracing.js';

/** Time limits and sizes of a producer. All times are milliseconds. */
export interface ProducerLimits {
  /**
   * For a prepare, repeats included; in `transaction` counted from its start.
   * @default 2000: longer would hold the locks of local transactions behind a broker that is down
   */
  prepareTimeoutMs: number;
  /**
   * For a commit or rollback, repeats included.
   * @default 5000: a broker that restarts is back by then; otherwise its check settles it
   */
  verdictTimeoutMs: number;
  /**
   * For send, query and registerGroup, repeats included.
   * @default 5000
   */
  requestTimeoutMs: number;
  /**
   * For one attempt at one broker address; then the next address is tried.
   * @default 1000: half of `prepareTimeoutMs`, so that a prepare always has a second attempt
   */
  attemptTimeoutMs: number;
  /**
   * Number of operations that may wait for the broker: for a batch, its answer, or their repeat. One more is
   * refused with BROKER_BUSY before anything of it was sent; a commit or rollback only at twice
   * this number.
   * @default 10000: 20 full batches, about what a broker takes in a second
   */
  operationsWaitingMax: number;
  /**
   * Bytes of the operations that may wait for the broker, as JSON in UTF-8; refused like
   * `operationsWaitingMax`. A single larger one is sent when nothing else waits.
   * @default 67108864 (64 MiB): eight full batches, and as much as a broker lets wait before its store
   */
  operationsWaitingBytesMax: number;
  /**
   * Bytes of one transaction as JSON in UTF-8, supplied data included. What is larger is refused
   * with BODY_TOO_LARGE before anything was written. Raise it together with the broker's
   * `ESCROW_TRANSACTION_BYTES_MAX`, which refuses what comes all the same; at most 8 MiB less 1 KiB,
   * because a batch has to hold it.
   * @default 1048576 (1 MiB), as at the broker
   */
  transactionBytesMax: number;
  /**
   * Number of connections per broker address.
   * @default 8: batches use one at a time, the rest serve queries; long polls have their own
   */
  connectionsPerBrokerMax: number;
  /**
   * For getting a database connection from the pool.
   * @default 2000: as long as the local COMMIT waits for the broker's prepare
   */
  connectionTimeoutMs: number;
  /**
   * For a local transaction from its start to its COMMIT. When it passes, the transaction
   * is rolled back; a connection that is still busy then is closed.
   * @default 60000: longer than InnoDB's own lock wait (50 s), much shorter than barrier rows live
   */
  transactionTimeoutMs: number;
  /**
   * From the prepare of a transaction to its first statement, by the system's clock, which goes on
   * while a machine sleeps. One that begins later is refused before anything was written.
   * @default 600000 (10 min): far less than barrier rows are kept
   */
  startDeadlineMs: number;
  /**
   * For finding out what became of a COMMIT that failed.
   * @default 5000: two lock waits of a second, and a database connection that has to be opened
   */
  settleTimeoutMs: number;
  /**
   * How long `close` waits for what is under way.
   * @default 10000
   */
  closeTimeoutMs: number;
}

/** Options of `createProducer`. All times are milliseconds. */
export interface ProducerOptions extends Partial<ProducerLimits> {
  /** Addresses of broker instances, such as `http://127.0.0.1:7171`. Any of them will do. */
  brokers: string[];
  /** The group that these transactions belong to, and that answers their checks. */
  producerGroup: string;
  /** Sent as a bearer token. @default none: a broker on loopback may go without */
  apiKey?: string;
  /**
   * Topics in outbox mode, or `true` for all. Messages that a transaction brings to them are not
   * prepared at the broker: they are stored in the producer's own database, in the table that
   * `ensureOutboxTable` creates, and sent once the local transaction has committed. So the service
   * works while the broker is down. The price is that table, and a relay that has to run
   * (`createOutboxRelay`): it sends what the process itself could not.
   *
   * A transaction is in outbox mode when all its topics are. One with other topics as well is
   * prepared at the broker, whole: its messages stay together, and either way is safe.
   *
   * Nobody checks a transaction in outbox mode, so its `checkAfterMs` and `database` mean nothing;
   * a delay of its messages counts from when the broker gets them; and until then the broker knows
   * nothing of its id and its business keys.
   *
   * A topic may be put in and taken out at any time; what is under way ends as it began. Keep the
   * relay running until its `stats().pending` is 0, and the check handler until no transaction is
   * prepared.
   *
   * @default none
   */
  outbox?:
    | boolean
    | {
        /** Names of the topics in outbox mode. */
        topics: string[];
      };
  /**
   * Puts prepares, sends and verdicts into traces, and lets messages carry the trace to their
   * consumers: `openTelemetry()` of `@escrowmq/producer/opentelemetry`. A `trace` given to a call
   * goes before the span's. @default none, at no cost
   */
  tracing?: Tracing;
  /**
   * Is told what is not thrown. Whatever it does changes no outcome: a line that it fails to take goes to
   * stderr. @default stderr: each line at once, with stacks, then one of its kind in ten seconds
   */
  logger?: Logger;
}

/** Options as parsed: defaults filled in, addresses reduced to their origins. */
export interface ProducerSettings extends ProducerLimits {
  brokerOrigins: string[];
  producerGroup: string;
  apiKey: string | undefined;
  /** Whether messages to that topic go through the outbox. */
  isOutboxTopic: (topic: string) => boolean;
  tracing: Tracing | undefined;
  logger: Logger;
}

/** A batch holds at least one, and what stands around it. */
const TRANSACTION_BYTES_MAX_MAX = LIMITS.batchBytesMax - 1024;

const LIMIT_DEFAULTS: ProducerLimits = {
  prepareTimeoutMs: 2_000,
  verdictTimeoutMs: 5_000,
  requestTimeoutMs: 5_000,
  attemptTimeoutMs: 1_000,
  operationsWaitingMax: 10_000,
  operationsWaitingBytesMax: 64 * 1024 * 1024,
  transactionBytesMax: LIMITS.transactionBytesMax,
  connectionsPerBrokerMax: 8,
  connectionTimeoutMs: 2_000,
  transactionTimeoutMs: 60_000,
  startDeadlineMs: 600_000,
  settleTimeoutMs: 5_000,
  closeTimeoutMs: 10_000,
};

/** Those that say where the broker is and who calls, wherever the SDK calls it. */
export const CONNECTION_OPTIONS = ['brokers', 'producerGroup', 'apiKey'] as const;

export const PRODUCER_OPTIONS = optionNames<ProducerOptions>({
  brokers: true,
  producerGroup: true,
  apiKey: true,
  outbox: true,
  tracing: true,
  logger: true,
  prepareTimeoutMs: true,
  verdictTimeoutMs: true,
  requestTimeoutMs: true,
  attemptTimeoutMs: true,
  transactionBytesMax: true,
  operationsWaitingMax: true,
  operationsWaitingBytesMax: true,
  connectionsPerBrokerMax: true,
  connectionTimeoutMs: true,
  transactionTimeoutMs: true,
  startDeadlineMs: true,
  settleTimeoutMs: true,
  closeTimeoutMs: true,
});

/**
 * Reads what it knows of the options; which names there may be is said by whoever takes them.
 *
 * @throws {EscrowError} INVALID_CONFIGURATION or INVALID_NAME, naming the option
 */
export function parseProducerOptions(options: ProducerOptions): ProducerSettings {
  const limits = parseLimits(options);
  if (limits.transactionBytesMax > TRANSACTION_BYTES_MAX_MAX) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `transactionBytesMax is ${limits.transactionBytesMax}; a broker takes batches of ${LIMITS.batchBytesMax} bytes, so it can be at most ${TRANSACTION_BYTES_MAX_MAX}`,
    );
  }
  return {
    ...limits,
    brokerOrigins: parseBrokers(options.brokers),
    producerGroup: parse(ProducerGroupName, options.producerGroup, 'producerGroup'),
    apiKey: parseApiKey(options.apiKey),
    isOutboxTopic: parseOutbox(options.outbox),
    tracing: parseTracing(options.tracing),
    logger: loggerOf(options.logger),
  };
}

function parseOutbox(outbox: ProducerOptions['outbox'] = false): (topic: string) => boolean {
  if (typeof outbox === 'boolean') return () => outbox;
  if (!Array.isArray(outbox?.topics)) {
    throw new EscrowError('INVALID_CONFIGURATION', 'outbox must be true, or { topics: [names] }');
  }
  refuseUnknown(outbox, ['topics'], 'outbox');
  const topics = new Set(outbox.topics.map((topic) => parse(Topic, topic, 'outbox.topics')));
  return (topic) => topics.has(topic);
}

function parseTracing(tracing: Tracing | undefined): Tracing | undefined {
  if (tracing === undefined || typeof tracing?.span === 'function') return tracing;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'tracing must have a function span, like what openTelemetry() returns',
  );
}

function parseLimits(options: Partial<ProducerLimits>): ProducerLimits {
  const limits = { ...LIMIT_DEFAULTS };
  for (const name of Object.keys(LIMIT_DEFAULTS) as (keyof ProducerLimits)[]) {
    limits[name] = parseLimit(name, options[name] ?? LIMIT_DEFAULTS[name]);
  }
  return limits;
}

/** Node fires a timer at once when its delay does not fit in 31 bits. */
const TIMER_MS_MAX = 2 ** 31 - 1;

/** @throws {EscrowError} INVALID_CONFIGURATION unless `value` is a whole number from 1 to 2^31 - 1 */
export function parseLimit(name: string, value: number): number {
  if (Number.isInteger(value) && value >= 1 && value <= TIMER_MS_MAX) return value;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `${name} is ${textOfError(value)}; it must be a whole number from 1 to ${TIMER_MS_MAX}`,
  );
}

function parseBrokers(brokers: unknown): string[] {
  if (!Array.isArray(brokers)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `brokers must be a list of addresses, such as ['http://127.0.0.1:7171'], and is ${kindOf(brokers)}`,
    );
  }
  if (brokers.length === 0) {
    throw new EscrowError('INVALID_CONFIGURATION', 'brokers needs at least one address');
  }
  return brokers.map(originOf);
}

/** Visible ASCII: what a header may carry, and what a broker takes for a key. */
const API_KEY = /^[\x21-\x7e]+$/;

/** A key that no header can carry would look like a broker that does not answer. */
function parseApiKey(apiKey: unknown): string | undefined {
  if (apiKey === undefined) return undefined;
  if (typeof apiKey === 'string' && API_KEY.test(apiKey)) return apiKey;
  // What it is stays unsaid: it is a secret.
  const said = typeof apiKey === 'string' ? oddCharacter(apiKey) : `is ${kindOf(apiKey)}`;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `apiKey ${said}: a key is visible ASCII characters only. One that was read from a file often ends with a line break`,
  );
}

function oddCharacter(apiKey: string): string {
  if (apiKey === '') return 'is empty';
  const at = apiKey.search(/[^\x21-\x7e]/);
  const code = (apiKey.codePointAt(at) ?? 0).toString(16).toUpperCase().padStart(4, '0');
  const place = at === apiKey.length - 1 ? 'at its end' : `at place ${at + 1} of ${apiKey.length}`;
  return `has the character U+${code} ${place}, which it can not have`;
}

function originOf(address: unknown): string {
  if (typeof address === 'string' && address !== address.trim()) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      'brokers has an address with white space or a line break at its start or end',
    );
  }
  const url = typeof address === 'string' && URL.canParse(address) ? new URL(address) : undefined;
  const isPlain =
    url?.username === '' &&
    url.password === '' &&
    url.pathname === '/' &&
    url.search === '' &&
    url.hash === '';
  if (isPlain && (url.protocol === 'http:' || url.protocol === 'https:')) return url.origin;
  // The address is not repeated here: a refused one may hold a password.
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    'brokers has an address that is not http(s)://host:port without user, password, path or query',
  );
}

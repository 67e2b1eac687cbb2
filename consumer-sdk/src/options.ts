import {
  ConsumerGroupName,
  EscrowError,
  type FieldError,
  LIMITS,
  optionNames,
  parse,
  RoutingKey,
  rabbitUrlProblem,
  refuseUnknown,
  Topic,
  type TopicPlaces,
  textOfError,
} from '@escrowmq/protocol';
import type { Log } from './events.js';
import {
  ORDERED_RETRY_DELAYS_MS_DEFAULT,
  type OrderedOptions,
  type OrderedSettings,
  orderedProblems,
  orderedSettings,
} from './ordered/options.js';
import type { Tracing } from './tracing.js';
import { type Given, namedTopic } from './typed/named-topic.js';

/** Options of `createConsumer`. */
export interface ConsumerOptions {
  /** `amqp://user:password@host:port/vhost` or `amqps://…`. */
  rabbitmq: string;
  /** Is told what happens, one event at a time; see `ConsumerEvent`. @default prints nothing */
  logger?: Log;
  /** How long `subscribe` waits for RabbitMQ before it rejects, in ms. @default 30000 */
  startTimeoutMs?: number;
  /**
   * Puts the work of handlers into the traces of their messages: `openTelemetry()` of
   * `@escrowmq/consumer/opentelemetry`. @default none, at no cost
   */
  tracing?: Tracing;
}

/** Options of `subscribe`. */
export interface SubscribeOptions {
  /** The topic to consume: 1 to 100 letters, digits, dots, dashes or underscores. */
  topic: string;
  /** The consumer group: instances with one group share the work, every group gets everything. */
  group: string;
  /**
   * Which messages of the topic, as RabbitMQ's topic patterns (`*` one word, `#` any). Bindings
   * are only ever added: a key that is no longer listed stays bound until somebody unbinds it in
   * RabbitMQ, because another instance may still want it. @default ['#']
   */
  routingKeys?: readonly string[];
  /**
   * Messages of this subscription that are out at a time (RabbitMQ's prefetch). Handlers that ran
   * out of time, or whose channel was lost, may still run on top of that. @default 16
   */
  concurrency?: number;
  /**
   * The pause after the first failure, after the second, and so on, in ms, never shrinking. After
   * the last one comes the dead letter, so there is one attempt more than there are delays. Each
   * distinct delay is a queue in RabbitMQ. @default 1 s growing to 5 min, 10 attempts in all
   */
  retryDelaysMs?: readonly number[];
  /**
   * The part by which a retry delay may be shorter, 0 to 1: what fails together comes back spread
   * over that part, by one instance evenly, and never later than the delay. @default 0.2
   */
  retryJitter?: number;
  /** A handler that takes longer has failed. It is told by `message.signal`. @default 60000 */
  handlerTimeoutMs?: number;
  /** How long `close` waits for handlers that run, in ms. @default 30000 */
  drainTimeoutMs?: number;
  /**
   * Handles the messages of one ordering key one at a time, in the order of their sequence. A
   * message that fails is retried in its place, and its key waits: `retryDelaysMs` is then 1 s
   * growing to 2 min by default, 8 attempts in all, and may take 25 min with the handler's time. A
   * message that was given up is a dead letter, and its key goes on with the next. `concurrency` is
   * the number of handlers that run for messages with a key, and as many again for those without.
   * @default without order
   */
  ordered?: OrderedOptions;
}

export type ConsumerSettings = Omit<Required<ConsumerOptions>, 'logger' | 'tracing'> & {
  logger: Log | undefined;
  tracing: Tracing | undefined;
};
export type SubscribeSettings = Required<Omit<SubscribeOptions, 'ordered'>> & {
  ordered: OrderedSettings | undefined;
  /** Of a typed topic: the schemas that messages have to fit. */
  places: TopicPlaces | undefined;
};

/** Sixteen handlers keep a database pool of usual size busy and no more. */
const CONCURRENCY_DEFAULT = 16;
/** RabbitMQ advises against more for a quorum queue: it keeps what is out in memory. */
const CONCURRENCY_MAX = 2_000;
/** Ten attempts in 15 minutes: past a restart of whatever the handler needs. */
const RETRY_DELAYS_MS_DEFAULT = [
  1_000, 5_000, 15_000, 30_000, 60_000, 120_000, 120_000, 300_000, 300_000,
];
/** A fifth: enough to take the edge off a return, and the delays still mean what they say. */
const RETRY_JITTER_DEFAULT = 0.2;
/** A message that waits longer than a day belongs into a schedule and not into a retry queue. */
const RETRY_DELAY_MS_MAX = 24 * 60 * 60 * 1000;
export const HANDLER_TIMEOUT_MS_DEFAULT = 60_000;
/** RabbitMQ closes the channel of a delivery that is not settled after 30 minutes. */
export const HANDLER_TIMEOUT_MS_MAX = 25 * 60 * 1000;
const START_TIMEOUT_MS_DEFAULT = 30_000;
/** Kubernetes sends SIGKILL 30 s after SIGTERM unless told otherwise. */
export const DRAIN_TIMEOUT_MS_DEFAULT = 30_000;
/** A timer of Node holds at most 2^31-1 ms; an hour is long enough for anybody. */
export const WAIT_MS_MAX = 60 * 60 * 1000;

const CONSUMER_OPTIONS = optionNames<ConsumerOptions>({
  rabbitmq: true,
  logger: true,
  startTimeoutMs: true,
  tracing: true,
});

/** @throws EscrowError INVALID_CONFIGURATION or UNKNOWN_FIELD; never shows the URL, which holds a password */
export function parseConsumerOptions(options: ConsumerOptions): ConsumerSettings {
  refuseUnknown(options, CONSUMER_OPTIONS, 'createConsumer');
  const { rabbitmq, logger, startTimeoutMs = START_TIMEOUT_MS_DEFAULT, tracing } = options;
  const problems: FieldError[] = [];
  const urlProblem = rabbitUrlProblem(rabbitmq);
  if (urlProblem !== undefined) problems.push({ path: 'rabbitmq', message: urlProblem });
  if (logger !== undefined && typeof logger !== 'function') {
    problems.push({ path: 'logger', message: 'must be a function' });
  }
  if (tracing !== undefined && typeof tracing?.span !== 'function') {
    problems.push({ path: 'tracing', message: 'must have a function span' });
  }
  problems.push(...integer('startTimeoutMs', startTimeoutMs, { min: 1, max: WAIT_MS_MAX }));
  refuse(problems, 'createConsumer');
  return { rabbitmq, logger, startTimeoutMs, tracing };
}

const SUBSCRIBE_OPTIONS = optionNames<SubscribeOptions>({
  topic: true,
  group: true,
  routingKeys: true,
  concurrency: true,
  retryDelaysMs: true,
  retryJitter: true,
  handlerTimeoutMs: true,
  drainTimeoutMs: true,
  ordered: true,
});

/** @throws EscrowError INVALID_NAME, INVALID_CONFIGURATION or UNKNOWN_FIELD */
export function parseSubscribeOptions(
  options: Given<SubscribeOptions>,
  where: 'subscribe' | 'subscribeBatch' = 'subscribe',
): SubscribeSettings {
  // Those of a batch were looked at as such.
  if (where === 'subscribe') refuseUnknown(options, SUBSCRIBE_OPTIONS, where);
  const named = namedTopic(options);
  const settings: SubscribeSettings = {
    topic: parse(Topic, named.topic, 'topic'),
    places: named.places,
    group: parse(ConsumerGroupName, options.group, 'group'),
    routingKeys: named.routingKeys ?? ['#'],
    concurrency: options.concurrency ?? CONCURRENCY_DEFAULT,
    retryDelaysMs:
      options.retryDelaysMs ??
      (options.ordered === undefined ? RETRY_DELAYS_MS_DEFAULT : ORDERED_RETRY_DELAYS_MS_DEFAULT),
    retryJitter: options.retryJitter ?? RETRY_JITTER_DEFAULT,
    handlerTimeoutMs: options.handlerTimeoutMs ?? HANDLER_TIMEOUT_MS_DEFAULT,
    drainTimeoutMs: options.drainTimeoutMs ?? DRAIN_TIMEOUT_MS_DEFAULT,
    ordered: options.ordered ? orderedSettings(options.ordered) : undefined,
  };
  const { concurrency, handlerTimeoutMs, drainTimeoutMs } = settings;
  refuse(
    [
      ...integer('concurrency', concurrency, { min: 1, max: CONCURRENCY_MAX }),
      ...integer('handlerTimeoutMs', handlerTimeoutMs, { min: 1, max: HANDLER_TIMEOUT_MS_MAX }),
      ...integer('drainTimeoutMs', drainTimeoutMs, { min: 0, max: WAIT_MS_MAX }),
      ...routingKeyProblems(settings.routingKeys),
      ...retryDelayProblems(settings.retryDelaysMs),
      ...retryJitterProblems(settings.retryJitter),
      ...(options.ordered === undefined ? [] : orderedProblems(options.ordered, settings)),
    ],
    where,
  );
  for (const key of settings.routingKeys) parse(RoutingKey, key, 'a routing key');
  // Copies: the caller's arrays may change while the subscription lives.
  return {
    ...settings,
    routingKeys: [...settings.routingKeys],
    retryDelaysMs: [...settings.retryDelaysMs],
  };
}

/** What is wrong with a list of patterns, but for the patterns themselves. */
export function routingKeyProblems(routingKeys: unknown): FieldError[] {
  const fits =
    Array.isArray(routingKeys) &&
    routingKeys.length > 0 &&
    routingKeys.length <= LIMITS.routingKeysPerSubscriptionMax;
  if (fits) return [];
  return [
    {
      path: 'routingKeys',
      message: `must be a list of 1 to ${LIMITS.routingKeysPerSubscriptionMax} patterns`,
    },
  ];
}

function retryDelayProblems(retryDelaysMs: unknown): FieldError[] {
  const path = 'retryDelaysMs';
  if (!Array.isArray(retryDelaysMs) || retryDelaysMs.length > LIMITS.retryDelaysMax) {
    return [{ path, message: `must be a list of at most ${LIMITS.retryDelaysMax} delays in ms` }];
  }
  const problems = retryDelaysMs.flatMap((delayMs, index) =>
    integer(`${path}.${index}`, delayMs, { min: 1, max: RETRY_DELAY_MS_MAX }),
  );
  const shrinks = retryDelaysMs.some((delayMs, index) => delayMs < retryDelaysMs[index - 1]);
  if (shrinks) problems.push({ path, message: 'must not shrink: the later, the longer' });
  return problems;
}

function retryJitterProblems(retryJitter: unknown): FieldError[] {
  if (typeof retryJitter === 'number' && retryJitter >= 0 && retryJitter <= 1) return [];
  const message = `must be a number from 0 to 1, got ${textOfError(retryJitter)}`;
  return [{ path: 'retryJitter', message }];
}

export function integer(
  path: string,
  value: unknown,
  range: { min: number; max: number },
): FieldError[] {
  const { min, max } = range;
  if (Number.isInteger(value) && Number(value) >= min && Number(value) <= max) return [];
  return [
    { path, message: `must be a whole number from ${min} to ${max}, got ${textOfError(value)}` },
  ];
}

/** @throws EscrowError INVALID_CONFIGURATION, when there are any problems */
export function refuse(problems: FieldError[], where: string): void {
  if (problems.length === 0) return;
  const said = problems.map(({ path, message }) => `${path} ${message}`).join('; ');
  throw new EscrowError('INVALID_CONFIGURATION', `${where}: ${said}`, { fields: problems });
}

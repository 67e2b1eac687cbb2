import winston from 'winston';
import { createRedact, describeError } from './redact.js';

/*
 * The log: one JSON object a line to standard output, or one readable line for people. Facts are
 * logged by a list of names; a name that is not on it is left out and named under `omitted`, so that
 * nobody logs a body by accident. Every text passes the redaction.
 */

export type LogLevel = 'error' | 'warn' | 'info' | 'debug';

/** Facts by name. Values are texts, numbers, booleans or lists of them; others are left out. */
export type Facts = Record<string, unknown>;

export interface Log {
  error(event: string, facts?: Facts, error?: unknown): void;
  warn(event: string, facts?: Facts, error?: unknown): void;
  info(event: string, facts?: Facts): void;
  debug(event: string, facts?: Facts): void;
}

export interface LogOptions {
  /** The least important level that is written. @default 'info' */
  level?: LogLevel;
  /** One JSON object a line; else lines for people. @default true */
  json?: boolean;
  /** Credentials that must never show, whatever quotes them: API keys, passwords. @default none */
  secrets?: readonly string[];
  /** @default standard output */
  stream?: NodeJS.WritableStream;
}

const LOGGED_NAMES: ReadonlySet<string> = new Set([
  // who and where
  'id',
  'transactionId',
  'messageId',
  'producerGroup',
  'consumerGroup',
  'webhook',
  'topic',
  'queue',
  'endpoint',
  'operator',
  'apiKeyName',
  'role',
  // what became of it
  'kind',
  'state',
  'decision',
  'decidedBy',
  'outcome',
  'detail',
  'reason',
  'code',
  'attempt',
  'action',
  'status',
  // how much and how long
  'count',
  'prepared',
  'committed',
  'forwarded',
  'rolledBack',
  'parked',
  'purged',
  'room',
  'tookMs',
  'delayMs',
  'limitMs',
  'ageMs',
  // the broker itself
  'version',
  'node',
  'pid',
  'instance',
  'listen',
  'address',
  'port',
  'server',
  'connection',
  'store',
  'rabbitmq',
  'migration',
  'setting',
  'names',
  'signal',
  'method',
  'route',
]);

/** Lists in facts are names of a few things; a long one is data. */
const LIST_ITEMS_MAX = 20;

const OMITTED_NAMES_MAX = 10;

/** @example createLog({ level: 'info', json: true }).info('listening', { address: '127.0.0.1', port: 7171 }) */
export function createLog(options: LogOptions = {}): Log {
  const redact = createRedact(options.secrets);
  const { stream } = options;
  const logger = winston.createLogger({
    level: options.level ?? 'info',
    format: winston.format.printf(({ entry }) =>
      options.json === false ? lineForPeople(entry as Entry) : JSON.stringify(entry),
    ),
    transports: [
      stream === undefined
        ? new winston.transports.Console()
        : new winston.transports.Stream({ stream }),
    ],
  });

  function write(level: LogLevel, event: string, rest: { facts?: Facts; error?: unknown }): void {
    if (!logger.isLevelEnabled(level)) return;
    const entry: Entry = {
      time: new Date().toISOString(),
      level,
      event: redact(event),
      ...loggedFacts(rest.facts ?? {}, redact),
      ...(rest.error === undefined ? {} : { error: describeError(rest.error, redact) }),
    };
    logger.log({ level, message: event, entry });
  }

  return {
    error: (event, facts, error) => write('error', event, { ...(facts && { facts }), error }),
    warn: (event, facts, error) => write('warn', event, { ...(facts && { facts }), error }),
    info: (event, facts) => write('info', event, { ...(facts && { facts }) }),
    debug: (event, facts) => write('debug', event, { ...(facts && { facts }) }),
  };
}

interface Entry extends Record<string, unknown> {
  time: string;
  level: LogLevel;
  event: string;
}

function loggedFacts(facts: Facts, redact: (text: string) => string): Facts {
  const logged: Facts = {};
  const omitted: string[] = [];
  for (const [name, value] of Object.entries(facts)) {
    if (value === undefined) continue;
    const shown = LOGGED_NAMES.has(name) ? loggedValue(value, redact) : undefined;
    if (shown === undefined) omitted.push(redact(name));
    else logged[name] = shown;
  }
  if (omitted.length > 0) logged.omitted = omitted.slice(0, OMITTED_NAMES_MAX);
  return logged;
}

function loggedValue(value: unknown, redact: (text: string) => string): unknown {
  if (typeof value === 'string') return redact(value);
  if (typeof value === 'number' || typeof value === 'boolean') return value;
  if (!Array.isArray(value) || value.length > LIST_ITEMS_MAX) return undefined;
  const items = value.map((item) => (Array.isArray(item) ? undefined : loggedValue(item, redact)));
  return items.includes(undefined) ? undefined : items;
}

/** Values are written as JSON, so that no text can begin a line of its own. */
function lineForPeople({ time, level, event, ...facts }: Entry): string {
  const parts = Object.entries(facts).map(([name, value]) => `${name}=${JSON.stringify(value)}`);
  return [time, level.toUpperCase().padEnd(5), onOneLine(event), ...parts].join(' ');
}

function onOneLine(text: string): string {
  return text.replace(/\p{Cc}/gu, ' ');
}

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { EscrowError, LIMITS, ProducerGroupName } from '@escrowmq/protocol';
import { z } from 'zod';
import type { ApiKey } from './http/api-keys.js';

/**
 * The broker's whole configuration: the environment, parsed once, here and nowhere else. Every
 * variable begins with `ESCROW_`; docs/operations.md lists them, and a test holds the two together.
 * A secret may come from a file: `ESCROW_RABBITMQ_FILE` names one that holds `ESCROW_RABBITMQ`.
 */

/** Random 256-bit keys have 43 characters or more; a short one was typed by a person. */
const API_KEY_CHARS_MIN = 16;
const HOUR_MS = 60 * 60 * 1000;
const DAY_MS = 24 * HOUR_MS;

const integer = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

const Listen = z.string().transform((value, context) => {
  const match = /^(?:\[([0-9a-fA-F:]+)\]|([^:[\]]+)):([0-9]{1,5})$/.exec(value);
  const host = match?.[1] ?? match?.[2];
  const port = Number(match?.[3]);
  if (host === undefined || port > 65535) {
    context.addIssue({
      code: 'custom',
      message: 'must be host:port, such as 127.0.0.1:7171 or [::1]:7171',
    });
    return z.NEVER;
  }
  return { host, port };
});

const ApiKeys = z.string().transform((value, context): ApiKey[] => {
  const entries = value.split(',').map((entry) => entry.trim());
  return entries
    .filter((entry) => entry !== '')
    .flatMap((entry, index) => {
      const key = parseApiKey(entry);
      if (typeof key !== 'string') return [key];
      context.addIssue({ code: 'custom', message: `entry ${index + 1} ${key}` });
      return [];
    });
});

/** The key, or what is wrong with the entry; the entry itself is never shown. */
function parseApiKey(entry: string): ApiKey | string {
  const [name = '', role, ...rest] = entry.split(':');
  const group = role === 'producer' ? rest.shift() : undefined;
  const key = rest.join(':');
  if (name === '' || (role !== 'operator' && role !== 'producer')) {
    return 'must be name:operator:key or name:producer:<group>:key';
  }
  if (role === 'producer' && !ProducerGroupName.safeParse(group).success) {
    return `(${name}) names no producer group: write name:producer:<group>:key`;
  }
  if (key.length < API_KEY_CHARS_MIN) {
    return `(${name}) has a key of fewer than ${API_KEY_CHARS_MIN} characters; make one with "openssl rand -hex 32"`;
  }
  return {
    name,
    role: role === 'operator' ? 'operator' : { producer: group ?? '' },
    sha256: createHash('sha256').update(key).digest(),
  };
}

const Environment = z.object({
  ESCROW_LISTEN: Listen.prefault('127.0.0.1:7171'),
  ESCROW_STORE: z.string().default('sqlite:escrow.db'),
  ESCROW_RABBITMQ: z
    .string({
      error:
        'is not set: give the URL of a RabbitMQ, such as amqp://guest:guest@127.0.0.1:5672; ' +
        'without one, "docker run -p 127.0.0.1:5672:5672 rabbitmq:4.1" starts one, or the package rabbitmq-server',
    })
    .regex(/^amqps?:\/\/./, 'must be amqp://user:password@host:port/vhost or amqps://…'),
  ESCROW_API_KEYS: ApiKeys.prefault(''),
  ESCROW_CALLBACK_ALLOW: z.string().default(''),
  ESCROW_LOG_LEVEL: z.enum(['error', 'warn', 'info', 'debug']).default('info'),
  ESCROW_LOG_FORMAT: z.enum(['json', 'text']).optional(),
  ESCROW_TRANSACTION_BYTES_MAX: integer(1024, LIMITS.batchBytesMax).default(
    LIMITS.transactionBytesMax,
  ),
  ESCROW_HELD_BYTES_MAX: integer(0, 2 ** 33).default(64 * 1024 * 1024),
  ESCROW_UNROUTED_ATTEMPTS_MAX: integer(1, 10_000).default(20),
  // Two hours at least: an insert looks for tombstones only under ids older than one.
  ESCROW_FINISHED_KEPT_HOURS: integer(2, 24 * 365).default(24 * 7),
  // Ids are taken up to 29 days after their time; a tombstone must outlive them.
  ESCROW_TOMBSTONES_KEPT_DAYS: integer(30, 3650).default(30),
  ESCROW_UNSETTLED_ALERT_DAYS: integer(1, 3650).default(30),
  ESCROW_HOUSEKEEPING_CRON: z.string().default('*/5 * * * *'),
  ESCROW_SHUTDOWN_MS: integer(100, 600_000).default(10_000),
});

export interface Config {
  listen: { host: string; port: number };
  /** Only this machine can reach the broker. */
  onLoopback: boolean;
  storeUrl: string;
  rabbitmqUrl: string;
  apiKeys: ApiKey[];
  callbackAllow: string;
  log: { level: 'error' | 'warn' | 'info' | 'debug'; json: boolean };
  transactionBytesMax: number;
  heldBytesMax: number;
  undeliverableAttemptsMax: number;
  finishedKeptMs: number;
  tombstonesKeptMs: number;
  /** After so long without the word of an expected group it is alerted. */
  unsettledAlertMs: number;
  housekeepingCron: string;
  shutdownMs: number;
  /** Credentials that no log may show. */
  secrets: string[];
  /** `ESCROW_…` variables that are set and mean nothing: most likely typing errors. */
  unknownVariables: string[];
}

/** Names of all variables, for the documentation's test. */
export const VARIABLES = Object.keys(Environment.shape);
const FROM_FILE = ['ESCROW_STORE', 'ESCROW_RABBITMQ', 'ESCROW_API_KEYS'];
const OTHERS_OF_OURS = /^ESCROW_(TEST_|DEMO_)/;

type Variables = Record<string, string | undefined>;

function withFiles(environment: Variables): Variables {
  const values = { ...environment };
  for (const name of FROM_FILE) {
    const path = environment[`${name}_FILE`];
    if (path === undefined) continue;
    if (environment[name] !== undefined) {
      throw invalid(`${name} and ${name}_FILE are both set; set one of the two`);
    }
    try {
      values[name] = readFileSync(path, 'utf8').trim();
    } catch (error) {
      throw invalid(
        `${name}_FILE can not be read: ${error instanceof Error ? error.message : error}`,
      );
    }
  }
  return values;
}

const invalid = (message: string) => new EscrowError('INVALID_CONFIGURATION', message);

const isLoopback = (host: string) =>
  host === 'localhost' || host === '::1' || /^127(\.[0-9]{1,3}){3}$/.test(host);

/**
 * @throws INVALID_CONFIGURATION that names the variable and what would be right
 * @param onTerminal somebody reads along: then the log is for people unless it is said otherwise
 * @example parseConfig(process.env, process.stdout.isTTY)
 */
export function parseConfig(environment: Variables, onTerminal = false): Config {
  const values = withFiles(environment);
  // An empty variable means "not set", as compose files write it.
  const given = Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ''));
  const parsed = Environment.safeParse(given);
  if (!parsed.success) {
    const said = parsed.error.issues.map(({ path, message }) => `${path.join('.')} ${message}`);
    throw invalid(said.join('\n'));
  }
  const env = parsed.data;
  const format = env.ESCROW_LOG_FORMAT ?? (onTerminal ? 'text' : 'json');
  const onLoopback = isLoopback(env.ESCROW_LISTEN.host);
  if (!onLoopback && env.ESCROW_API_KEYS.length === 0) {
    throw invalid(
      `ESCROW_LISTEN is ${env.ESCROW_LISTEN.host}, which others can reach, and ESCROW_API_KEYS is not set: ` +
        'without API keys the broker listens on loopback only',
    );
  }
  const known = new Set([...VARIABLES, ...FROM_FILE.map((name) => `${name}_FILE`)]);
  return {
    listen: env.ESCROW_LISTEN,
    onLoopback,
    storeUrl: env.ESCROW_STORE,
    rabbitmqUrl: env.ESCROW_RABBITMQ,
    apiKeys: env.ESCROW_API_KEYS,
    callbackAllow: env.ESCROW_CALLBACK_ALLOW,
    log: { level: env.ESCROW_LOG_LEVEL, json: format === 'json' },
    transactionBytesMax: env.ESCROW_TRANSACTION_BYTES_MAX,
    heldBytesMax: env.ESCROW_HELD_BYTES_MAX,
    undeliverableAttemptsMax: env.ESCROW_UNROUTED_ATTEMPTS_MAX,
    finishedKeptMs: env.ESCROW_FINISHED_KEPT_HOURS * HOUR_MS,
    tombstonesKeptMs: env.ESCROW_TOMBSTONES_KEPT_DAYS * DAY_MS,
    unsettledAlertMs: env.ESCROW_UNSETTLED_ALERT_DAYS * DAY_MS,
    housekeepingCron: env.ESCROW_HOUSEKEEPING_CRON,
    shutdownMs: env.ESCROW_SHUTDOWN_MS,
    secrets: secretsOf(values),
    unknownVariables: Object.keys(environment).filter(
      (name) => name.startsWith('ESCROW_') && !known.has(name) && !OTHERS_OF_OURS.test(name),
    ),
  };
}

/** Passwords and keys as they stand in the environment. */
function secretsOf(values: Variables): string[] {
  const passwords = [values.ESCROW_STORE, values.ESCROW_RABBITMQ].flatMap((url) => {
    if (url === undefined || !URL.canParse(url)) return [];
    const { password } = new URL(url);
    return password === '' ? [] : [password, decodeURIComponent(password)];
  });
  const keys = (values.ESCROW_API_KEYS ?? '').split(',').flatMap((entry) => {
    const key = entry.trim().split(':').at(-1);
    return key === undefined || key === '' ? [] : [key];
  });
  return [...passwords, ...keys];
}

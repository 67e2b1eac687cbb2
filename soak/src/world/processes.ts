import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  type ConsumerSettings,
  type ProducerSettings,
  SETTINGS_VARIABLE,
} from '../services/settings.js';
import { type Child, programAt, startChild } from './child.js';

/* How brokers, producers and consumers are started: the product's own programs, and ours. */

const BROKER = new URL(import.meta.resolve('@escrowmq/broker/dist/main.js'));
/** The options of Node that the product starts itself with, from the first line of its program. */
const BROKER_NODE_OPTIONS =
  /^#!\/usr\/bin\/env -S node (.*)/.exec(readFileSync(BROKER, 'utf8'))?.[1]?.split(' ') ?? [];

/** Migrations on a fresh store take well under a second. */
const BROKER_START_MS_MAX = 30_000;
const POLL_MS = 50;

export interface BrokerOptions {
  name: string;
  port: number;
  folder: string;
  store: string;
  rabbitmq: string;
}

/** Resolves when it is ready, RabbitMQ included. */
export async function startBroker(options: BrokerOptions): Promise<Child> {
  const { name, port, folder, store, rabbitmq } = options;
  const child = startChild({
    name,
    command: [...BROKER_NODE_OPTIONS, fileURLToPath(BROKER)],
    log: join(folder, `${name}.log`),
    env: {
      ...inherited(),
      ESCROW_LISTEN: `127.0.0.1:${port}`,
      ESCROW_STORE: store,
      ESCROW_RABBITMQ: rabbitmq,
    },
  });
  // It says so by HTTP and not by a message of ours.
  const broker = { ...child, ready: () => readyAt(port) };
  await broker.ready();
  return broker;
}

export function startProducerProcess(options: {
  folder: string;
  settings: ProducerSettings;
  hear(message: unknown): void;
}): Child {
  return startService('producer-main.js', options);
}

export function startConsumer(options: {
  folder: string;
  settings: ConsumerSettings;
  hear(message: unknown): void;
}): Child {
  return startService('consumer-main.js', options);
}

function startService(
  program: string,
  options: { folder: string; settings: { name: string }; hear(message: unknown): void },
): Child {
  const { folder, settings, hear } = options;
  return startChild({
    name: settings.name,
    command: [programAt(`services/${program}`)],
    log: join(folder, `${settings.name}.log`),
    env: { ...inherited(), [SETTINGS_VARIABLE]: JSON.stringify(settings) },
    onMessage: hear,
  });
}

/** Nothing of this process's own ESCROW_ variables: the soak says what is tried. */
const inherited = () => ({ PATH: process.env.PATH ?? '', HOME: process.env.HOME ?? '' });

async function readyAt(port: number): Promise<void> {
  const startedAt = performance.now();
  while (performance.now() - startedAt < BROKER_START_MS_MAX) {
    if (await isReady(port)) return;
    await pause(POLL_MS);
  }
  throw new Error(`the broker on port ${port} was not ready within ${BROKER_START_MS_MAX} ms`);
}

/** Ready and not degraded: 200 alone says nothing about RabbitMQ. */
async function isReady(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/readyz`, {
      signal: AbortSignal.timeout(1_000),
    });
    const { degraded } = (await response.json()) as { degraded?: boolean };
    return response.ok && degraded === false;
  } catch {
    // Nobody listens yet.
    return false;
  }
}

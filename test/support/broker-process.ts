import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { freePorts } from '@escrowmq/local-servers';
import { afterAll } from '@jest/globals';
import { freshMysqlDatabase } from './servers.js';

const MAIN = fileURLToPath(new URL('../../broker/dist/main.js', import.meta.url));
const START_MS_MAX = 60_000;
const LOG_LINES_KEPT = 500;

export type StoreKind = 'sqlite' | 'mysql';

/** The broker as users run it: its own process, configured by its environment. */
export interface BrokerProcess {
  url: string;
  /** Log entries so far, newest last. */
  log: Record<string, unknown>[];
  /** SIGKILL; resolves when it is dead. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
  /** Starts it again on the same port, store and settings. */
  start(): Promise<void>;
}

/** A new store of either kind, and how to take it away again. */
export async function freshStore(
  kind: StoreKind,
): Promise<{ url: string; remove(): Promise<void> }> {
  if (kind === 'mysql') return { url: await freshMysqlDatabase(), remove: async () => undefined };
  const folder = await mkdtemp(join(tmpdir(), 'escrow-store-'));
  return {
    url: `sqlite:${join(folder, 'escrow.db')}`,
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** What a failed test left running ends with its file. */
const running = new Set<ChildProcess>();
afterAll(() => {
  for (const child of running) child.kill('SIGKILL');
});

export async function startBrokerProcess(settings: {
  store: string;
  rabbitmq: string;
  environment?: Record<string, string>;
  /** The broker's entry file. @default that of this repository */
  main?: string;
  /** Sees each log entry as it comes. */
  onLog?: (entry: Record<string, unknown>, child: ChildProcess) => void;
}): Promise<BrokerProcess> {
  const [port] = await freePorts(1);
  const log: Record<string, unknown>[] = [];
  let child: ChildProcess | undefined;

  async function start(): Promise<void> {
    const started = spawn(process.execPath, [settings.main ?? MAIN], {
      env: {
        PATH: process.env.PATH,
        ESCROW_LISTEN: `127.0.0.1:${port}`,
        ESCROW_STORE: settings.store,
        ESCROW_RABBITMQ: settings.rabbitmq,
        ...settings.environment,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child = started;
    running.add(started);
    started.once('exit', () => running.delete(started));
    // What it says on standard error is part of why it did not start.
    const errors: string[] = [];
    started.stderr?.on('data', (chunk) => errors.push(String(chunk)));
    const lines = createInterface({ input: started.stdout as NodeJS.ReadableStream });
    await new Promise<void>((resolve, reject) => {
      const limit = setTimeout(() => reject(new Error('the broker did not start')), START_MS_MAX);
      lines.on('line', (line) => {
        const entry = JSON.parse(line) as Record<string, unknown>;
        log.push(entry);
        settings.onLog?.(entry, started);
        if (log.length > LOG_LINES_KEPT) log.shift();
        if (entry.event !== 'listening') return;
        clearTimeout(limit);
        resolve();
      });
      started.once('exit', (code) => {
        clearTimeout(limit);
        reject(
          new Error(
            `the broker ended with ${code}: ${errors.join('')}${JSON.stringify(log.at(-1))}`,
          ),
        );
      });
    });
  }

  async function end(signal: NodeJS.Signals): Promise<number | null> {
    const current = child;
    if (current === undefined || current.exitCode !== null || current.signalCode !== null) {
      return current?.exitCode ?? null;
    }
    current.kill(signal);
    await once(current, 'exit');
    return current.exitCode;
  }

  await start();
  return {
    url: `http://127.0.0.1:${port}`,
    log,
    kill: async () => {
      await end('SIGKILL');
    },
    stop: () => end('SIGTERM'),
    start,
  };
}

import { join } from 'node:path';
import { freePorts } from '@escrowmq/local-servers';
import type { Child } from './child.js';
import type { Crew } from './crew.js';
import { waitFor } from './wait-for.js';

/** The broker as users run it: a process of its own, configured by its environment. */
export interface BrokerProcess {
  url: string;
  /** The SQLite file. */
  storePath: string;
  /** SIGKILL. */
  kill(): Promise<void>;
  /** Starts it again, on the same store and port. */
  start(): Promise<void>;
  /** SIGTERM, and its orderly end. */
  stop(): Promise<void>;
}

const MAIN = new URL(import.meta.resolve('@escrowmq/broker/dist/main.js'));

export async function startBroker(options: {
  crew: Crew;
  dir: string;
  rabbitmqUrl: string;
}): Promise<BrokerProcess> {
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const storePath = join(options.dir, 'escrow.db');
  let child: Child;

  async function start(): Promise<void> {
    child = options.crew.start({
      name: 'the broker',
      module: MAIN,
      log: join(options.dir, 'broker.log'),
      env: {
        ESCROW_LISTEN: `127.0.0.1:${port}`,
        ESCROW_STORE: `sqlite:${storePath}`,
        ESCROW_RABBITMQ: options.rabbitmqUrl,
      },
    });
    await waitFor('the broker to be ready', () => isReady(url));
  }

  await start();
  return { url, storePath, start, kill: () => child.kill(), stop: () => child.stop() };
}

async function isReady(url: string): Promise<true | undefined> {
  try {
    const response = await fetch(`${url}/readyz`);
    await response.arrayBuffer();
    return response.ok ? true : undefined;
  } catch {
    // Nobody listens yet.
    return undefined;
  }
}

import { mkdirSync } from 'node:fs';
import {
  freePorts,
  type PrivateRabbitmq,
  type ServerSet,
  startPrivateRabbitmq,
  startTcpProxy,
  type TcpProxy,
} from '@escrowmq/local-servers';
import { LINK_NAMES, type LinkName, type ProcessName } from '../nemesis/fault.js';
import type { Child } from './child.js';
import { startDatabaseServer } from './databases.js';
import { PRODUCERS } from './names.js';
import { startParties } from './parties.js';
import { createDatabases, type Databases } from './set-up-databases.js';
import { createHearing, type Tally } from './tally.js';

/*
 * The system under test: two brokers on one store, two producers and two consumers, each a process
 * with what it would have in production, and a proxy between every two that talk.
 */

export interface WorldOptions {
  seed: number;
  transactions: number;
  /** Where the logs go. */
  folder: string;
  /** Whose servers. @default as startPrivateRabbitmq has it */
  servers?: ServerSet | undefined;
}

export interface World {
  proxies: Record<LinkName, TcpProxy>;
  processes: Record<ProcessName, Child>;
  databases: Databases;
  rabbitmq: PrivateRabbitmq;
  tally: Tally;
  /** Transactions that were started so far. */
  started(): number;
  /** So many transactions may be started by now, over all producers. */
  grant(transactions: number): void;
  /** Tells a process that was started again what it may do. */
  greet(process: ProcessName): void;
  /** A connection was cut at the moment that matters. */
  struck(link: LinkName): void;
  /** All producers have ended their work. */
  isDone(): boolean;
  /** Ends everything and deletes the servers. */
  close(): Promise<void>;
}

/** Resolves when all of it runs. What was started ends with this process at the latest. */
export async function buildWorld(options: WorldOptions): Promise<World> {
  mkdirSync(options.folder, { recursive: true });
  const { servers } = options;
  const [store, services, rabbitmq] = await Promise.all([
    startDatabaseServer('store', servers),
    startDatabaseServer('services', servers),
    startPrivateRabbitmq({ servers }),
  ]);
  const databases = { store, services };
  await createDatabases(databases);
  const [broker1 = 0, broker2 = 0, endpoint1 = 0, endpoint2 = 0] = await freePorts(4);
  const proxies = await startProxies({
    'producer-1>broker-1': broker1,
    'producer-1>broker-2': broker2,
    'producer-2>broker-1': broker1,
    'producer-2>broker-2': broker2,
    'brokers>producer-1': endpoint1,
    'brokers>producer-2': endpoint2,
    'broker-1>store': store.server.port,
    'broker-2>store': store.server.port,
    'broker-1>rabbitmq': rabbitmq.port,
    'broker-2>rabbitmq': rabbitmq.port,
    'producer-1>database': services.server.port,
    'producer-2>database': services.server.port,
    'consumer-1>database': services.server.port,
    'consumer-2>database': services.server.port,
    'consumer-1>rabbitmq': rabbitmq.port,
    'consumer-2>rabbitmq': rabbitmq.port,
  });
  const { tally, hear, started, isDone } = createHearing();
  const processes = await startParties({
    ...options,
    databases,
    proxies,
    hear,
    brokerPorts: { 'broker-1': broker1, 'broker-2': broker2 },
    endpointPorts: { 'producer-1': endpoint1, 'producer-2': endpoint2 },
  });

  let granted = 0;
  const grantTo = (name: (typeof PRODUCERS)[number]) =>
    processes[name].send({ grant: Math.ceil(granted / PRODUCERS.length) });
  return {
    proxies,
    processes,
    databases,
    rabbitmq,
    tally,
    started,
    isDone,
    grant(transactions) {
      granted = Math.max(granted, transactions);
      PRODUCERS.forEach(grantTo);
    },
    greet(name) {
      const producer = PRODUCERS.find((one) => one === name);
      if (producer !== undefined) void processes[producer].ready().then(() => grantTo(producer));
    },
    struck(link) {
      tally.struck[link] = (tally.struck[link] ?? 0) + 1;
    },
    async close() {
      await Promise.all(Object.values(processes).map((child) => child.kill()));
      await Promise.all(Object.values(proxies).map((proxy) => proxy.close()));
      await Promise.all(
        [store.admin.end(), services.admin.end()].map((end) => end.catch(() => {})),
      );
      await Promise.all([store.server.remove(), services.server.remove(), rabbitmq.remove()]);
    },
  };
}

async function startProxies(
  targets: Record<LinkName, number>,
): Promise<Record<LinkName, TcpProxy>> {
  const started = await Promise.all(
    LINK_NAMES.map(
      async (name) => [name, await startTcpProxy(`tcp://127.0.0.1:${targets[name]}`)] as const,
    ),
  );
  return Object.fromEntries(started) as Record<LinkName, TcpProxy>;
}

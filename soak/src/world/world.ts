import { mkdirSync } from 'node:fs';
import { ensureConsumedTable } from '@escrowmq/consumer';
import { freePorts, type PrivateRabbitmq, startPrivateRabbitmq } from '@escrowmq/local-servers';
import { createProducer, ensureBarrierTable } from '@escrowmq/producer';
import { createPool } from 'mysql2/promise';
import { LINK_NAMES, type LinkName, type ProcessName } from '../nemesis/fault.js';
import { PRODUCER_GROUP, Report } from '../services/settings.js';
import { CONSUMER_TABLES, PRODUCER_TABLES, STORE_TABLES } from '../services/tables.js';
import type { Child } from './child.js';
import { type DatabaseServer, startDatabaseServer } from './databases.js';
import { startBroker, startConsumer, startProducerProcess } from './processes.js';
import { type LinkProxy, startProxy } from './proxy.js';

/*
 * The system under test: two brokers on one store, two producers and two consumers, each a process
 * with what it would have in production, and a proxy between every two that talk.
 */

export const PRODUCERS = ['producer-1', 'producer-2'] as const;
const DATABASES = { 'producer-1': 'producer_1', 'producer-2': 'producer_2' } as const;
const CONSUMER_DATABASE = 'consumers';
const STORE_DATABASE = 'broker';

export interface WorldOptions {
  seed: number;
  transactions: number;
  /** Where the logs go. */
  folder: string;
}

export interface Tally {
  outcomes: { committed: number; thrown: number; unknown: number };
  duplicates: number;
  /** Connections that were cut at the moment that matters. */
  struck: Partial<Record<LinkName, number>>;
}

export interface World {
  proxies: Record<LinkName, LinkProxy>;
  processes: Record<ProcessName, Child>;
  databases: { store: DatabaseServer; services: DatabaseServer };
  rabbitmq: PrivateRabbitmq;
  /** Database names by what is in them. */
  names: { store: string; consumers: string; producers: Record<string, string> };
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

export async function buildWorld(options: WorldOptions): Promise<World> {
  mkdirSync(options.folder, { recursive: true });
  const [store, services, rabbitmq] = await Promise.all([
    startDatabaseServer('store'),
    startDatabaseServer('services'),
    startPrivateRabbitmq(),
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

  const tally: Tally = {
    outcomes: { committed: 0, thrown: 0, unknown: 0 },
    duplicates: 0,
    struck: {},
  };
  const started = new Map<string, number>();
  const done = new Set<string>();
  let granted = 0;
  const hear = (name: string) => (message: unknown) => {
    const parsed = Report.safeParse(message);
    if (!parsed.success) return;
    const told = parsed.data;
    if ('started' in told) {
      started.set(name, Math.max(told.started, started.get(name) ?? 0));
      done.delete(name);
    } else if ('done' in told) done.add(name);
    else if ('outcome' in told) tally.outcomes[told.outcome] += 1;
    else if ('duplicate' in told) tally.duplicates += 1;
  };

  const { folder, seed } = options;
  const brokers = await Promise.all(
    [broker1, broker2].map((port, index) =>
      startBroker({
        name: `broker-${index + 1}`,
        port,
        folder,
        store: store.url(
          proxies[index === 0 ? 'broker-1>store' : 'broker-2>store'].port,
          STORE_DATABASE,
        ),
        rabbitmq: rabbitmqUrl(
          proxies[index === 0 ? 'broker-1>rabbitmq' : 'broker-2>rabbitmq'].port,
        ),
      }),
    ),
  );
  for (const sql of STORE_TABLES) await inDatabase(store, STORE_DATABASE, sql);
  const signingSecret = await registerGroup(broker1, [
    proxies['brokers>producer-1'].port,
    proxies['brokers>producer-2'].port,
  ]);

  const consumers = (['consumer-1', 'consumer-2'] as const).map((name) =>
    startConsumer({
      folder,
      hear: hear(name),
      settings: {
        name,
        rabbitmq: rabbitmqUrl(proxies[`${name}>rabbitmq`].port),
        database: services.url(proxies[`${name}>database`].port, CONSUMER_DATABASE),
      },
    }),
  );
  await Promise.all(consumers.map((consumer) => consumer.ready()));
  const half = Math.floor(options.transactions / PRODUCERS.length);
  const producers = PRODUCERS.map((name, index) =>
    startProducerProcess({
      folder,
      hear: hear(name),
      settings: {
        name,
        seed,
        signingSecret,
        brokers: [1, 2].map(
          (broker) => `http://127.0.0.1:${proxies[`${name}>broker-${broker}` as LinkName].port}`,
        ),
        databases: Object.fromEntries(
          Object.entries(DATABASES).map(([producer, database]) => [
            producer,
            services.url(proxies[`${name}>database`].port, database),
          ]),
        ),
        checkPort: index === 0 ? endpoint1 : endpoint2,
        transactions: index === 0 ? options.transactions - half : half,
      },
    }),
  );
  await Promise.all(producers.map((producer) => producer.ready()));

  const processes = Object.fromEntries(
    [...brokers, ...producers, ...consumers].map((child) => [child.name, child]),
  ) as Record<ProcessName, Child>;
  const grantTo = (name: (typeof PRODUCERS)[number]) =>
    processes[name].send({ grant: Math.ceil(granted / PRODUCERS.length) });
  return {
    proxies,
    processes,
    databases,
    rabbitmq,
    names: { store: STORE_DATABASE, consumers: CONSUMER_DATABASE, producers: DATABASES },
    tally,
    started: () => [...started.values()].reduce((sum, count) => sum + count, 0),
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
    isDone: () => PRODUCERS.every((name) => done.has(name)),
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

const rabbitmqUrl = (port: number) => `amqp://guest:guest@127.0.0.1:${port}`;

async function createDatabases({ store, services }: World['databases']): Promise<void> {
  await store.create(STORE_DATABASE);
  for (const database of Object.values(DATABASES)) {
    await services.create(database);
    for (const sql of PRODUCER_TABLES) await inDatabase(services, database, sql);
    await withPool(services.url(services.server.port, database), ensureBarrierTable);
  }
  await services.create(CONSUMER_DATABASE);
  for (const sql of CONSUMER_TABLES) await inDatabase(services, CONSUMER_DATABASE, sql);
  await withPool(services.url(services.server.port, CONSUMER_DATABASE), ensureConsumedTable);
}

async function inDatabase(target: DatabaseServer, database: string, sql: string): Promise<void> {
  await withPool(target.url(target.server.port, database), async (pool) => {
    await pool.query(sql);
  });
}

async function withPool(
  url: string,
  work: (pool: ReturnType<typeof createPool>) => Promise<void>,
): Promise<void> {
  const pool = createPool({ uri: url, connectionLimit: 1 });
  try {
    await work(pool);
  } finally {
    await pool.end();
  }
}

async function startProxies(
  targets: Record<LinkName, number>,
): Promise<Record<LinkName, LinkProxy>> {
  const started = await Promise.all(
    LINK_NAMES.map(async (name) => [name, await startProxy(targets[name])] as const),
  );
  return Object.fromEntries(started) as Record<LinkName, LinkProxy>;
}

/** Checks come soon after one another, and never so often that one is given up for good. */
async function registerGroup(brokerPort: number, endpointPorts: number[]): Promise<string> {
  const producer = createProducer({
    brokers: [`http://127.0.0.1:${brokerPort}`],
    producerGroup: PRODUCER_GROUP,
  });
  try {
    const { signingSecret } = await producer.registerGroup({
      checkUrls: endpointPorts.map((port) => `http://127.0.0.1:${port}/check`),
      checkPolicy: { delayMsMax: 1_000, unknownMax: 1_000, concurrencyMax: 16 },
    });
    if (signingSecret === undefined) throw new Error('the producer group existed before');
    return signingSecret;
  } finally {
    await producer.close();
  }
}

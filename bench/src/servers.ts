import { once } from 'node:events';
import { mkdirSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import {
  freePorts,
  type PrivateMysql,
  type PrivateRabbitmq,
  startPrivateMysql,
  startPrivateRabbitmq,
} from '@escrowmq/local-servers';
import { spawnOwned } from './measure/owned-child.js';

/*
 * What is measured: one RabbitMQ, one MariaDB or more, and brokers, each a process of its own and
 * none older than this run. All contenders of a comparison use the same ones.
 */

/**
 * MariaDB's own defaults, which local-servers makes smaller for tests. With its 32 MB of redo log a
 * store that takes 8,000 transactions a second would measure InnoDB's checkpoints. What makes a
 * commit durable (both logs synced at every one, row format) is set there and stays.
 */
const MARIADB_CONF = ['innodb_buffer_pool_size = 128M', 'loose-innodb_log_file_size = 96M'];

const BROKER = new URL(import.meta.resolve('@escrowmq/broker/dist/main.js'));
/** The options of Node that the product starts itself with, from the first line of its program. */
const BROKER_NODE_OPTIONS = nodeOptionsIn(readFileSync(BROKER, 'utf8'));
const DIE_WITH_PARENT = new URL('./measure/die-with-parent.js', import.meta.url);

/** Migrations on a fresh store take well under a second. */
const BROKER_START_MS_MAX = 30_000;
const POLL_MS = 50;
/** For the end of a broker's log in an error. */
const LOG_CHARS_SHOWN = 2_000;

export type StoreKind = 'sqlite' | 'mariadb';

export interface MariadbServer {
  /** `mysql://user:password@127.0.0.1:port/database`; the user may do everything. */
  url: string;
  /** Read anew at every call: a server that was restarted has another one. */
  pid(): number;
  /** An empty database of its own. */
  createDatabase(): Promise<string>;
}

export interface RabbitmqServer {
  url: string;
  /** Read anew at every call: a server that was restarted has another one. */
  pid(): number;
  /** To stop and restart it, and for its `ctl`. */
  server: PrivateRabbitmq;
}

export interface BrokerOptions {
  /** Which kind of store, in a fresh one; or the URL of one that exists. */
  store: StoreKind | { url: string };
  /** `ESCROW_…` variables beside those that the bench sets. @default none: the broker's defaults */
  environment?: Record<string, string>;
  /** Options of Node beside the product's own, such as `--cpu-prof`. @default none */
  nodeOptions?: string[];
}

export interface Broker {
  /** `http://127.0.0.1:port` */
  url: string;
  /** URL of its store. */
  storeUrl: string;
  /** Of the process that runs now. */
  pid(): number;
  /** SIGTERM; resolves when it has ended. */
  stop(): Promise<void>;
  /** SIGKILL; resolves when it is dead. */
  kill(): Promise<void>;
  /** Starts it again on the same port and store. */
  start(): Promise<void>;
}

export interface Servers {
  rabbitmq: RabbitmqServer;
  /** Shared by the stores of brokers and peers. */
  mariadb: MariadbServer;
  /** One more, where two must be told apart, such as a business database. */
  startMariadb(): Promise<MariadbServer>;
  /** `mysql://…` of an empty database, or `sqlite:<path>` where no file is yet. */
  freshStoreUrl(kind: StoreKind): Promise<string>;
  /** Resolves when it is ready, RabbitMQ included. */
  startBroker(options: BrokerOptions): Promise<Broker>;
  /** Ends everything. */
  close(): Promise<void>;
}

/**
 * Starts RabbitMQ and MariaDB. What is started here ends with this process, however that ends.
 *
 * @throws Error when a server is not installed and can't be, or does not start
 * @example
 * const servers = await startServers();
 * const broker = await servers.startBroker({ store: 'mariadb' });
 */
export async function startServers(): Promise<Servers> {
  const running: { end(): Promise<void> }[] = [];
  const close = async () => {
    // In the reverse order: a broker would only complain about servers that are gone.
    for (const { end } of running.splice(0).reverse()) await end();
  };
  const startMariadb = async () => {
    const server = await startPrivateMysql({ conf: MARIADB_CONF });
    running.push({ end: () => server.remove() });
    return mariadbServer(server);
  };
  const startRabbitmq = async () => {
    const server = await startPrivateRabbitmq();
    running.push({ end: () => server.remove() });
    return { url: server.url, pid: () => pidIn(join(server.dir, 'rabbitmq.pid')), server };
  };
  try {
    const [rabbitmq, mariadb] = await Promise.all([startRabbitmq(), startMariadb()]);
    // In the folder of a server, which somebody deletes even after a SIGKILL of this process.
    const folder = join(rabbitmq.server.dir, 'bench');
    mkdirSync(folder);
    let files = 0;
    const newPath = () => {
      files += 1;
      return join(folder, String(files));
    };
    const freshStoreUrl = async (kind: StoreKind) =>
      kind === 'mariadb' ? mariadb.createDatabase() : `sqlite:${newPath()}.db`;
    return {
      rabbitmq,
      mariadb,
      startMariadb,
      freshStoreUrl,
      async startBroker({ store, environment = {}, nodeOptions = [] }) {
        const broker = await createBroker({
          storeUrl: typeof store === 'object' ? store.url : await freshStoreUrl(store),
          log: `${newPath()}.log`,
          environment: { ESCROW_RABBITMQ: rabbitmq.url, ...environment },
          nodeOptions,
        });
        running.push({ end: broker.kill });
        return broker;
      },
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function mariadbServer(server: PrivateMysql): MariadbServer {
  return {
    url: server.url,
    pid: () => pidIn(join(server.dir, 'mysql.pid')),
    createDatabase: () => server.createDatabase(),
  };
}

/** @throws Error when the program does not begin with how it is started */
function nodeOptionsIn(program: string): string[] {
  const options = /^#!\/usr\/bin\/env -S node (.*)/.exec(program)?.[1];
  if (options === undefined) throw new Error(`${BROKER.href} does not say how Node is to run it`);
  return options.split(' ');
}

const pidIn = (file: string) => Number(readFileSync(file, 'utf8'));

interface BrokerProcess {
  storeUrl: string;
  log: string;
  environment: Record<string, string>;
  nodeOptions: string[];
}

async function createBroker({
  storeUrl,
  log,
  environment,
  nodeOptions,
}: BrokerProcess): Promise<Broker> {
  const [port = 0] = await freePorts(1);
  const url = `http://127.0.0.1:${port}`;
  const spawnBroker = () => {
    const output = openSync(log, 'a');
    return spawnOwned(
      [
        process.execPath,
        ...BROKER_NODE_OPTIONS,
        ...nodeOptions,
        ...['--import', DIE_WITH_PARENT.href, fileURLToPath(BROKER)],
      ],
      {
        // Nothing of this process's own ESCROW_ variables: the bench says what is measured.
        env: {
          PATH: process.env.PATH,
          HOME: process.env.HOME,
          ESCROW_LISTEN: `127.0.0.1:${port}`,
          ESCROW_STORE: storeUrl,
          ...environment,
        },
        stdio: ['ignore', output, output, 'ipc'],
      },
    );
  };
  let child = spawnBroker();
  const end = async (signal: NodeJS.Signals) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  };
  const ready = async () => {
    const startedAt = performance.now();
    while (!(await isReady(url))) {
      const tooLate = performance.now() - startedAt > BROKER_START_MS_MAX;
      if (tooLate || child.exitCode !== null || child.signalCode !== null) {
        await end('SIGKILL');
        const said = readFileSync(log, 'utf8').slice(-LOG_CHARS_SHOWN);
        throw new Error(
          `the broker on ${storeUrl} did not become ready; it printed last:\n${said}`,
        );
      }
      await pause(POLL_MS);
    }
  };
  await ready();
  return {
    url,
    storeUrl,
    pid: () => child.pid ?? 0,
    stop: () => end('SIGTERM'),
    kill: () => end('SIGKILL'),
    async start() {
      child = spawnBroker();
      await ready();
    },
  };
}

/** Ready and not degraded: 200 alone says nothing about RabbitMQ. */
async function isReady(url: string): Promise<boolean> {
  try {
    const response = await fetch(`${url}/readyz`);
    const { degraded } = (await response.json()) as { degraded?: boolean };
    return response.ok && degraded === false;
  } catch {
    // Nobody listens yet.
    return false;
  }
}

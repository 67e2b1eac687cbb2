import { once } from 'node:events';
import { closeSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { freePorts } from '@escrowmq/local-servers';
import { runLoad } from '../measure/load-process.js';
import { spawnOwned } from '../measure/owned-child.js';
import { DATA_BYTES } from '../rows/group.js';
import { buildRocketmq } from './rocketmq-build.js';

/*
 * Apache RocketMQ: one name server and one broker, with a data folder that goes when they do. It is
 * broker and transaction coordinator in one, so neither RabbitMQ nor MariaDB has a part in it.
 */

const NAME_SERVER = 'org.apache.rocketmq.namesrv.NamesrvStartup';
const BROKER = 'org.apache.rocketmq.broker.BrokerStartup';
const LOAD = 'TransactionLoad';

const NAME_SERVER_HEAP = '256m';
/** Its own start script says 8 GiB, but after 60 s of full load 22 MB had outlived a collection. */
const BROKER_HEAP = '1g';
/** Each thread that writes keeps a buffer of 4.2 MB outside the heap; without them it loses commits. */
const BROKER_BUFFERS = '2g';
const LOAD_HEAP = '512m';

/**
 * Commits wait for the disk in threads of their own, while half messages do not. With the default, 12
 * on two cores, commits pile up behind half messages that keep coming, those older than 3 s are
 * thrown away, and only a check finds them, half a minute later: 600 transactions a second
 * instead of 8,000.
 */
const END_TRANSACTION_THREADS = 64;

/** Both start in 2 to 5 s. */
const START_MS_MAX = 60_000;
const POLL_MS = 50;

/** A run like any other, whose own warm-up of 20 s is what the servers are in need of. */
const WARM_UP_SECONDS = 1;

/** For the end of a log in an error. */
const LOG_CHARS_SHOWN = 2_000;

export interface RocketmqOptions {
  /**
   * SYNC_FLUSH answers when a message is on disk, as EscrowMQ does; ASYNC_FLUSH, RocketMQ's default,
   * when it is in memory.
   */
  flush: 'SYNC_FLUSH' | 'ASYNC_FLUSH';
}

export interface RocketmqPeer {
  /** Of its load, without the settings. */
  command: [string, ...string[]];
  /** Its own part of the load's settings; concurrency, seconds and dataBytes are the caller's. */
  settings: { nameServer: string; connections: number };
  /** For the CPU figures. */
  processes: { rocketmq: number; nameServer: number };
  /** What a reader must know to judge its figures. */
  notes: string[];
  /** Kills both servers and deletes their folder. */
  stop(): Promise<void>;
}

/**
 * Builds what RocketMQ needs to be measured.
 *
 * @returns why that is not possible here, in a sentence; undefined when all is there
 */
export async function rocketmqUnavailable(): Promise<string | undefined> {
  try {
    await buildRocketmq();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/**
 * Starts RocketMQ and warms it up.
 *
 * @throws Error when it can't be built or started
 * @example
 * const { command, settings, processes, stop } = await startRocketmq({ flush: 'SYNC_FLUSH' });
 * await runLoad({
 *   command,
 *   settings: { ...settings, concurrency: 64, seconds: 5, dataBytes: 256 },
 *   processes,
 * });
 * await stop();
 */
export async function startRocketmq({ flush }: RocketmqOptions): Promise<RocketmqPeer> {
  const classPath = await buildRocketmq();
  const folder = await mkdtemp(join(tmpdir(), 'escrowmq-rocketmq-'));
  const removeFolder = () => rmSync(folder, { recursive: true, force: true });
  // Runs after the servers were killed, whose hook was there before.
  process.on('exit', removeFolder);
  const servers: JavaServer[] = [];
  const stop = async () => {
    await Promise.all(servers.map((server) => server.kill()));
    await rm(folder, { recursive: true, force: true });
    process.off('exit', removeFolder);
  };
  try {
    const [nameServerPort = 0, port = 0, replicationPort = 0] = await freePorts(3);
    const address = `127.0.0.1:${nameServerPort}`;
    const start = async (options: Omit<ServerOptions, 'folder' | 'classPath'>) => {
      const server = startServer({ ...options, folder, classPath });
      servers.push(server);
      await server.started();
      return server;
    };
    const nameServer = await start({
      mainClass: NAME_SERVER,
      heap: NAME_SERVER_HEAP,
      configuration: { listenPort: nameServerPort, bindAddress: '127.0.0.1' },
      args: [],
    });
    const broker = await start({
      mainClass: BROKER,
      heap: BROKER_HEAP,
      configuration: brokerConfiguration({ flush, port, replicationPort, folder }),
      options: [`-XX:MaxDirectMemorySize=${BROKER_BUFFERS}`],
      args: ['-n', address],
    });
    const peer: RocketmqPeer = {
      command: java({ folder, classPath, heap: LOAD_HEAP }, [LOAD]),
      settings: { nameServer: address, connections: 1 },
      processes: { rocketmq: broker.pid, nameServer: nameServer.pid },
      notes: notesOn(flush),
      stop,
    };
    await warmUp(peer);
    return peer;
  } catch (error) {
    await stop();
    throw error;
  }
}

function notesOn(flush: RocketmqOptions['flush']): string[] {
  return [
    flush === 'SYNC_FLUSH'
      ? 'SYNC_FLUSH: half messages are on disk when acknowledged'
      : 'ASYNC_FLUSH, its default: half messages are in memory only when acknowledged',
    'its commit is sent one-way and never acknowledged; measured until consumers could read all messages',
    `endTransactionThreadPoolNums=${END_TRANSACTION_THREADS}, since its default loses commits under this load`,
  ];
}

function brokerConfiguration(options: {
  flush: RocketmqOptions['flush'];
  port: number;
  replicationPort: number;
  folder: string;
}): Record<string, string | number> {
  const store = join(options.folder, 'store');
  return {
    brokerClusterName: 'bench',
    brokerName: 'bench',
    brokerId: 0,
    brokerRole: 'ASYNC_MASTER',
    flushDiskType: options.flush,
    brokerIP1: '127.0.0.1',
    bindAddress: '127.0.0.1',
    listenPort: options.port,
    haListenPort: options.replicationPort,
    storePathRootDir: store,
    storePathCommitLog: join(store, 'commitlog'),
    endTransactionThreadPoolNums: END_TRANSACTION_THREADS,
    // It refuses to write when the disk is fuller than this; 75 by default.
    diskMaxUsedSpaceRatio: 95,
  };
}

/** By the load itself. */
async function warmUp({ command, settings, processes }: RocketmqPeer): Promise<void> {
  await runLoad({
    command,
    settings: { ...settings, concurrency: 64, seconds: WARM_UP_SECONDS, dataBytes: DATA_BYTES },
    processes,
  });
}

interface ServerOptions {
  folder: string;
  classPath: string;
  mainClass: string;
  heap: string;
  /** Of the JVM, beside the heap. @default none */
  options?: string[];
  /** A properties file, by name and value. */
  configuration: Record<string, string | number>;
  /** Beside the configuration. */
  args: string[];
}

interface JavaServer {
  pid: number;
  /** Resolves when it says that it has started. */
  started(): Promise<void>;
  kill(): Promise<void>;
}

function startServer(options: ServerOptions): JavaServer {
  const name = options.mainClass.slice(options.mainClass.lastIndexOf('.') + 1);
  const configuration = join(options.folder, `${name}.properties`);
  const lines = Object.entries(options.configuration).map(([key, value]) => `${key}=${value}\n`);
  writeFileSync(configuration, lines.join(''));
  const logFile = join(options.folder, `${name}.log`);
  const log = openSync(logFile, 'a');
  const child = spawnOwned(
    java(options, ['DieWithParent', options.mainClass, '-c', configuration, ...options.args]),
    // A pipe for standard input, which ends with this process.
    { stdio: ['pipe', log, log], env: { PATH: process.env.PATH, ROCKETMQ_HOME: options.folder } },
  );
  closeSync(log);
  const ended = once(child, 'exit');
  const running = () => child.exitCode === null && child.signalCode === null;
  return {
    pid: child.pid ?? 0,
    async started() {
      const startedAt = performance.now();
      while (!readFileSync(logFile, 'utf8').includes('boot success')) {
        if (!running() || performance.now() - startedAt > START_MS_MAX) {
          const said = readFileSync(logFile, 'utf8').slice(-LOG_CHARS_SHOWN);
          throw new Error(`${name} of RocketMQ did not start; it printed last:\n${said}`);
        }
        await pause(POLL_MS);
      }
    },
    async kill() {
      if (running()) child.kill('SIGKILL');
      await ended;
    },
  };
}

/** Logs and everything else that goes into the user's home are led into the folder. */
function java(
  {
    folder,
    classPath,
    heap,
    options = [],
  }: Pick<ServerOptions, 'folder' | 'classPath' | 'heap' | 'options'>,
  args: string[],
): [string, ...string[]] {
  return [
    ...(['java', `-Xms${heap}`, `-Xmx${heap}`, ...options] as const),
    ...[`-Duser.home=${folder}`, '-cp', classPath, ...args],
  ];
}

import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { freePorts } from '@escrowmq/local-servers';
import { createConnection } from 'mysql2/promise';
import { spawnOwned } from '../measure/owned-child.js';
import { buildDtm } from './dtm-build.js';

/*
 * DTM: a transaction coordinator whose two-phase message is prepared, submitted and checked as
 * EscrowMQ's is. It stores in MariaDB, but knows no RabbitMQ: what it delivers is an HTTP request.
 * So its message gets one branch, in the load's own process, that publishes the body and answers
 * after RabbitMQ's confirm. Then both do the same job, and DTM's is done with the least around it.
 *
 * Tried and found no faster: its gRPC interface, submitting with `wait_result`, GOGC=400,
 * READ COMMITTED (which does not end its deadlocks either).
 */

/**
 * DTM's default is 500, which is also all that a private MariaDB has. On two cores 64 callers get the
 * same from 20, 50, 100 and 500 (320 to 460 transactions a second, MariaDB's and DTM's CPU time being
 * the limit). 256 callers get as much from 30 and 100; with 500 MariaDB spends a quarter more on each
 * transaction, and one run in six fell to 84 a second in a storm of deadlocks.
 */
const CONNECTIONS = 50;

/**
 * Writers of the branches' outcomes. With the default, 1, it lagged 700 branches behind at 256 callers,
 * of the 1,000 after which everybody waits for it. More of them did not change the rate.
 */
const BRANCH_WRITERS = 4;

/** It starts in 0.2 s. */
const START_MS_MAX = 30_000;
const POLL_MS = 50;

/** For the end of what it printed, in an error. */
const OUTPUT_CHARS = 2_000;

export interface DtmOptions {
  /** `mysql://user:password@host:port/…`, of a user who may make databases. */
  mysql: string;
  /** `amqp://user:password@host:port` */
  rabbitmq: string;
}

export interface DtmPeer {
  /** Of its load, without the settings. */
  command: [string, ...string[]];
  /** Its own part of the load's settings; concurrency, seconds, dataBytes and queueType are the caller's. */
  settings: { dtm: string; rabbitmq: string };
  /** For the CPU figures. */
  processes: { dtm: number };
  /** What a reader must know to judge its figures. */
  notes: string[];
  /** Kills the server. Its tables stay in MariaDB. */
  stop(): Promise<void>;
}

/**
 * Builds what DTM needs to be measured.
 *
 * @returns why that is not possible here, in a sentence; undefined when all is there
 */
export async function dtmUnavailable(): Promise<string | undefined> {
  try {
    await buildDtm();
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/**
 * Starts a DTM server on empty tables. There can be one at a time on a MariaDB, since DTM's script
 * names the database.
 *
 * @throws Error when it can't be built or started
 * @example
 * const { command, settings, processes, stop } = await startDtm({ mysql, rabbitmq });
 * await runLoad({
 *   command,
 *   settings: { ...settings, queueType: 'classic', concurrency: 64, seconds: 5, dataBytes: 256 },
 *   processes,
 * });
 * await stop();
 */
export async function startDtm({ mysql, rabbitmq }: DtmOptions): Promise<DtmPeer> {
  const { server, load, schema } = await buildDtm();
  await makeTables(mysql, schema);
  // It listens on all interfaces: there is no setting for that.
  const [httpPort = 0, grpcPort = 0] = await freePorts(2);
  const url = `http://127.0.0.1:${httpPort}/api/dtmsvr`;
  const running = startServer(server, environment({ mysql, httpPort, grpcPort }));
  try {
    await running.ready(url);
  } catch (error) {
    await running.stop();
    throw error;
  }
  return {
    // DTM's client logs to standard output, which is the bench's.
    command: ['env', 'LOG_LEVEL=error', load],
    settings: { dtm: url, rabbitmq },
    processes: { dtm: running.pid },
    notes: NOTES,
    stop: running.stop,
  };
}

const NOTES = [
  "prepare and submit through DTM's own Go client over HTTP",
  "its one branch publishes to RabbitMQ, in the load's process: its CPU time is the load's",
  `DTM has ${CONNECTIONS} connections to MariaDB; calls refused for a deadlock are repeated`,
];

async function makeTables(mysql: string, schema: string): Promise<void> {
  const connection = await createConnection({ uri: mysql, multipleStatements: true });
  try {
    await connection.query(schema);
  } finally {
    await connection.end();
  }
}

interface Addresses {
  mysql: string;
  httpPort: number;
  grpcPort: number;
}

/** All that it gets: what this process's own environment says to a DTM is meant for another one. */
function environment({ mysql, httpPort, grpcPort }: Addresses): Record<string, string> {
  const { hostname, port, username, password } = new URL(mysql);
  return {
    STORE_DRIVER: 'mysql',
    STORE_HOST: hostname,
    STORE_PORT: port,
    STORE_USER: decodeURIComponent(username),
    STORE_PASSWORD: decodeURIComponent(password),
    STORE_MAX_OPEN_CONNS: String(CONNECTIONS),
    STORE_MAX_IDLE_CONNS: String(CONNECTIONS),
    UPDATE_BRANCH_ASYNC_GOROUTINE_NUM: String(BRANCH_WRITERS),
    HTTP_PORT: String(httpPort),
    GRPC_PORT: String(grpcPort),
    // At `info` it writes several lines for every transaction.
    LOG_LEVEL: 'error',
  };
}

interface DtmServer {
  pid: number;
  /** Resolves when it answers. */
  ready(url: string): Promise<void>;
  stop(): Promise<void>;
}

function startServer(command: string, env: Record<string, string>): DtmServer {
  // Its standard input ends with this process, and the server with that.
  const child = spawnOwned([command], { stdio: 'pipe', cwd: tmpdir(), env });
  const ended = once(child, 'exit');
  const running = () => child.exitCode === null && child.signalCode === null;
  let said = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      said = (said + text).slice(-OUTPUT_CHARS);
    });
  }
  return {
    pid: child.pid ?? 0,
    async ready(url) {
      const startedAt = performance.now();
      while (!(await answers(url))) {
        if (!running() || performance.now() - startedAt > START_MS_MAX) {
          throw new Error(`DTM did not start; it printed last:\n${said}`);
        }
        await pause(POLL_MS);
      }
    },
    async stop() {
      if (running()) child.kill('SIGKILL');
      await ended;
    },
  };
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(`${url}/version`)).ok;
  } catch {
    // Nobody listens yet.
    return false;
  }
}

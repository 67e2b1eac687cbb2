import { existsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createConnection } from 'mysql2/promise';

/** The versions the containers run; private processes run whatever the system installs. */
const RABBITMQ_IMAGE = 'rabbitmq:4.1';
const MYSQL_IMAGE = 'mysql:8.4';
const POSTGRES_IMAGE = 'postgres:17';

/** A local engine answers a ping in a few ms; a machine without one must not notice the question. */
const PING_TIMEOUT_MS = 500;

/** Pulling two images took most of a minute on an ordinary line; an offline engine may just hang. */
const CONTAINER_DEADLINE_MS = 180_000;

/** The port is open before the server lets anybody log in. */
const LOGIN_DEADLINE_MS = 30_000;
const LOGIN_POLL_MS = 200;

/** A server in a container, stopped and removed by `stop`. */
export interface ContainerServer {
  url: string;
  stop(): Promise<void>;
}

/** Whether a Docker-compatible engine answers, asked without loading any client library. */
export async function containerEngineAnswers(): Promise<boolean> {
  for (const endpoint of engineEndpoints()) {
    if (await answersPing(endpoint)) return true;
  }
  return false;
}

/** @throws Error when the image can't be had or the server does not start in time */
export async function startRabbitmqContainer(): Promise<ContainerServer> {
  const { RabbitMQContainer } = await import('@testcontainers/rabbitmq');
  const container = await withinDeadline(new RabbitMQContainer(RABBITMQ_IMAGE).start());
  const url = new URL(container.getAmqpUrl());
  return {
    url: `amqp://guest:guest@${url.host}`,
    stop: async () => {
      await container.stop();
    },
  };
}

/** @throws Error when the image can't be had or the server does not start in time */
export async function startMysqlContainer(): Promise<ContainerServer> {
  const { MySqlContainer } = await import('@testcontainers/mysql');
  const container = await withinDeadline(
    new MySqlContainer(MYSQL_IMAGE).withDatabase('escrow').withRootPassword('escrow').start(),
  );
  // Root: tests make databases, which the image's ordinary user may not.
  const server: ContainerServer = {
    url: container.getConnectionUri(true),
    stop: async () => {
      await container.stop();
    },
  };
  try {
    await waitForLogin(server.url);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return server;
}

/** @throws Error when the image can't be had or the server does not start in time */
export async function startPostgresContainer(): Promise<ContainerServer> {
  const { GenericContainer, Wait } = await import('testcontainers');
  const container = await withinDeadline(
    new GenericContainer(POSTGRES_IMAGE)
      .withEnvironment({ POSTGRES_USER: 'escrow', POSTGRES_PASSWORD: 'escrow' })
      .withExposedPorts(5432)
      // Said once by the server that makes the database, and again by the one that stays.
      .withWaitStrategy(Wait.forLogMessage(/ready to accept connections/, 2))
      .start(),
  );
  return {
    url: `postgres://escrow:escrow@${container.getHost()}:${container.getMappedPort(5432)}/escrow`,
    stop: async () => {
      await container.stop();
    },
  };
}

async function waitForLogin(url: string): Promise<void> {
  const startedAt = performance.now();
  for (;;) {
    try {
      const connection = await createConnection(url);
      await connection.end();
      return;
    } catch (error) {
      if (performance.now() - startedAt > LOGIN_DEADLINE_MS) throw error;
      await pause(LOGIN_POLL_MS);
    }
  }
}

/** A container that comes up after all, when nobody waits for it any more, is stopped. */
async function withinDeadline<T extends { stop(): Promise<unknown> }>(
  start: Promise<T>,
): Promise<T> {
  const deadline = new AbortController();
  const late = pause(CONTAINER_DEADLINE_MS, undefined, { signal: deadline.signal }).then(() => {
    start
      .then((container) => container.stop())
      .catch(() => {
        // The start failed after it was given up: there is no container to stop and nobody to tell.
      });
    throw new Error(`no container after ${CONTAINER_DEADLINE_MS / 1000} s`);
  });
  try {
    return await Promise.race([start, late]);
  } finally {
    deadline.abort();
    late.catch(() => {
      // The race was decided by the start: this is only the timer being taken back.
    });
  }
}

type Endpoint = { path: string } | { host: string; port: number };

/** Where engines listen: what DOCKER_HOST says, or the usual sockets that exist. */
function engineEndpoints(): Endpoint[] {
  const configured = process.env.DOCKER_HOST;
  if (configured !== undefined && configured !== '') {
    if (!URL.canParse(configured)) return [];
    const url = new URL(configured);
    if (url.protocol === 'unix:') return [{ path: url.pathname }];
    // 2375 is the engine's registered port; the other protocols (ssh) testcontainers can't use.
    return url.protocol === 'tcp:' || url.protocol === 'http:'
      ? [{ host: url.hostname, port: Number(url.port || 2375) }]
      : [];
  }
  const sockets = [
    '/var/run/docker.sock',
    join(homedir(), '.docker/run/docker.sock'),
    join(process.env.XDG_RUNTIME_DIR ?? '/run/user/none', 'docker.sock'),
  ];
  return sockets.filter((path) => existsSync(path)).map((path) => ({ path }));
}

/** Anything said in reply to a ping counts: with TLS it is a complaint, and still an engine. */
async function answersPing(endpoint: Endpoint): Promise<boolean> {
  const socket: Socket = connect(endpoint);
  try {
    return await new Promise<boolean>((resolve) => {
      socket.setTimeout(PING_TIMEOUT_MS, () => resolve(false));
      socket.once('error', () => resolve(false));
      socket.once('close', () => resolve(false));
      socket.once('data', () => resolve(true));
      socket.write('GET /_ping HTTP/1.0\r\nHost: localhost\r\n\r\n');
    });
  } finally {
    socket.destroy();
  }
}

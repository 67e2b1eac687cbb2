import {
  type ContainerServer,
  containerEngineAnswers,
  startMysqlContainer,
  startPostgresContainer,
  startRabbitmqContainer,
} from './containers.js';
import { createMysqlDatabase, startPrivateMysql } from './mysql.js';
import { createPostgresDatabase, startPrivatePostgres } from './postgres.js';
import { startPrivateRabbitmq } from './rabbitmq.js';
import { chosenServerSet } from './server-sets.js';

/*
 * Where a test run gets its servers from, in this order: the environment (ESCROW_TEST_RABBITMQ,
 * ESCROW_TEST_MYSQL, ESCROW_TEST_POSTGRES: URLs of servers that already run), private processes of the set that
 * ESCROW_TEST_SERVERS names, containers when an engine answers and has or gets the images, private
 * processes of the machine's packages otherwise. What was given is shared with others, so tests use
 * names and databases of their own and stop() leaves it alone.
 */

export interface TestServer {
  url: string;
  source: 'environment' | 'container' | 'private';
  /** Ends what this call started; does nothing to a server given by the environment. */
  stop(): Promise<void>;
}

export interface TestDatabaseServer extends TestServer {
  /**
   * Makes an empty database on that server.
   * @param name @default a name nobody has used
   * @returns its URL
   */
  createDatabase(name?: string): Promise<string>;
}

/**
 * A RabbitMQ for a test run.
 * @throws Error with one line that says what to install, when there is no way to one
 * @example const rabbitmq = await rabbitmqForTests(); // … await rabbitmq.stop();
 */
export async function rabbitmqForTests(): Promise<TestServer> {
  return obtain({
    name: 'RabbitMQ',
    url: process.env.ESCROW_TEST_RABBITMQ,
    fromContainer: startRabbitmqContainer,
    fromProcess: async () => {
      const rabbitmq = await startPrivateRabbitmq();
      return { url: rabbitmq.url, stop: () => rabbitmq.remove() };
    },
  });
}

/**
 * A MySQL or MariaDB for a test run; `createDatabase` gives each test its own.
 * @throws Error with one line that says what to install, when there is no way to one
 * @example const mysql = await mysqlForTests(); const url = await mysql.createDatabase();
 */
export async function mysqlForTests(): Promise<TestDatabaseServer> {
  const server = await obtain({
    name: 'MySQL',
    url: process.env.ESCROW_TEST_MYSQL,
    fromContainer: startMysqlContainer,
    fromProcess: async () => {
      const mysql = await startPrivateMysql();
      return { url: mysql.url, stop: () => mysql.remove() };
    },
  });
  return { ...server, createDatabase: (name) => createMysqlDatabase(server.url, name) };
}

/**
 * A PostgreSQL for a test run; `createDatabase` gives each test its own.
 * @throws Error with one line that says what to install, when there is no way to one
 * @example const postgres = await postgresForTests(); const url = await postgres.createDatabase();
 */
export async function postgresForTests(): Promise<TestDatabaseServer> {
  const server = await obtain({
    name: 'PostgreSQL',
    url: process.env.ESCROW_TEST_POSTGRES,
    fromContainer: startPostgresContainer,
    fromProcess: async () => {
      const postgres = await startPrivatePostgres();
      return { url: postgres.url, stop: () => postgres.remove() };
    },
  });
  return { ...server, createDatabase: (name) => createPostgresDatabase(server.url, name) };
}

interface Ways {
  name: string;
  url: string | undefined;
  fromContainer(): Promise<ContainerServer>;
  fromProcess(): Promise<{ url: string; stop(): Promise<void> }>;
}

async function obtain(ways: Ways): Promise<TestServer> {
  if (ways.url !== undefined && ways.url !== '') {
    return { url: ways.url, source: 'environment', stop: async () => {} };
  }
  if (chosenServerSet() === undefined && (await containerEngineAnswers())) {
    try {
      return { ...(await ways.fromContainer()), source: 'container' };
    } catch (error) {
      // An engine without a network has no images. The line says why the run goes on differently.
      const [reason] = String(error).split('\n');
      process.stderr.write(`no ${ways.name} container, so a private process instead: ${reason}\n`);
    }
  }
  return { ...(await ways.fromProcess()), source: 'private' };
}

import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { mysqlForTests, postgresForTests, rabbitmqForTests } from '@escrowmq/local-servers';

/**
 * Jest's globalSetup: one RabbitMQ and one MySQL for the whole run, and one PostgreSQL when the
 * first test asks for it, announced to the workers by the environment they inherit. Read them
 * through servers.ts.
 */
export default async function startServers() {
  const [rabbitmq, mysql, postgres] = await Promise.all([
    rabbitmqForTests(),
    mysqlForTests(),
    postgresOnDemand(),
  ]);
  const run = randomBytes(4).toString('hex');
  const announced = {
    ESCROW_TEST_RABBITMQ: rabbitmq.url,
    ESCROW_TEST_MYSQL: mysql.url,
    ESCROW_TEST_POSTGRES_FROM: postgres.address,
    // Goes into the name of every database, so that the teardown knows its own.
    ESCROW_TEST_RUN: run,
  };
  const before = Object.fromEntries(
    Object.keys(announced).map((variable) => [variable, process.env[variable]]),
  );
  Object.assign(process.env, announced);
  // Setup and teardown are two files that jest gives nothing in common but the global object.
  globalThis.escrowTestServers = { rabbitmq, mysql, postgres, run, before };
}

/**
 * Few tests need PostgreSQL, and which were selected is not known here. So whoever needs it asks
 * `address`, and gets its URL once it runs; it belongs to this process and not to a worker.
 */
async function postgresOnDemand() {
  let starting;
  const server = createServer((_request, response) => {
    starting ??= postgresForTests();
    starting.then(
      ({ url }) => response.end(url),
      (error) => response.writeHead(500).end(String(error)),
    );
  });
  await once(server.listen(0, '127.0.0.1'), 'listening');
  return {
    address: `http://127.0.0.1:${server.address().port}`,
    /** @returns what runs, to be stopped; undefined when nobody asked, or it could not be started */
    async close() {
      server.closeAllConnections();
      server.close();
      // The test that asked was told why it did not start.
      return starting?.catch(() => undefined);
    },
  };
}

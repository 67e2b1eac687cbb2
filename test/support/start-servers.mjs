import { randomBytes } from 'node:crypto';
import { mysqlForTests, rabbitmqForTests } from '@escrowmq/local-servers';

/**
 * Jest's globalSetup: one RabbitMQ and one MySQL for the whole run, announced to the workers by the
 * environment they inherit. Read them through servers.ts.
 */
export default async function startServers() {
  const [rabbitmq, mysql] = await Promise.all([rabbitmqForTests(), mysqlForTests()]);
  const run = randomBytes(4).toString('hex');
  const announced = {
    ESCROW_TEST_RABBITMQ: rabbitmq.url,
    ESCROW_TEST_MYSQL: mysql.url,
    // Goes into the name of every database, so that the teardown knows its own.
    ESCROW_TEST_RUN: run,
  };
  const before = Object.fromEntries(
    Object.keys(announced).map((variable) => [variable, process.env[variable]]),
  );
  Object.assign(process.env, announced);
  // Setup and teardown are two files that jest gives nothing in common but the global object.
  globalThis.escrowTestServers = { rabbitmq, mysql, run, before };
}

import { randomBytes } from 'node:crypto';
import { createMysqlDatabase, createPostgresDatabase } from '@escrowmq/local-servers';

/**
 * The run's RabbitMQ, shared by all test files and perhaps with other people: take names from
 * `uniqueName`, and delete what you declared. A test that stops or breaks RabbitMQ starts its own
 * with `startPrivateRabbitmq`.
 * @returns its `amqp://` URL
 */
export function rabbitmqUrl(): string {
  return announced('ESCROW_TEST_RABBITMQ');
}

/**
 * An empty database of the caller's own on the run's MySQL; dropped with the run.
 * @returns its `mysql://` URL
 */
export async function freshMysqlDatabase(): Promise<string> {
  return createMysqlDatabase(announced('ESCROW_TEST_MYSQL'), databaseName());
}

/**
 * An empty database of the caller's own on the run's PostgreSQL, which is started for the first
 * that asks; dropped with the run.
 * @returns its `postgres://` URL
 */
export async function freshPostgresDatabase(): Promise<string> {
  const response = await fetch(announced('ESCROW_TEST_POSTGRES_FROM'));
  const answer = await response.text();
  if (!response.ok) throw new Error(answer);
  return createPostgresDatabase(answer, databaseName());
}

/** Tells the teardown that it belongs to this run. */
function databaseName(): string {
  return `escrow_test_${announced('ESCROW_TEST_RUN')}_${randomBytes(8).toString('hex')}`;
}

/** A name nobody else on a shared server uses: `uniqueName('orders')` gives `orders-3f…`. */
export function uniqueName(base: string): string {
  return `${base}-${randomBytes(8).toString('hex')}`;
}

function announced(variable: string): string {
  const value = process.env[variable];
  if (value === undefined) {
    throw new Error(
      `${variable} is not set: servers are started for test/contract, test/system, test/faults and test/long only (see jest.config.mjs)`,
    );
  }
  return value;
}

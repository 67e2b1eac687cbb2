import { dropMysqlDatabases, dropPostgresDatabases } from '@escrowmq/local-servers';

/**
 * Jest's globalTeardown: ends what start-servers.mjs started. A server that was given by the
 * environment goes on, so the databases of this run are dropped there.
 */
export default async function stopServers() {
  const { rabbitmq, mysql, postgres: onDemand, run, before } = globalThis.escrowTestServers;
  const postgres = await onDemand.close();
  const ours = `escrow_test_${run}_`;
  if (mysql.source === 'environment') await dropMysqlDatabases(mysql.url, ours);
  if (postgres?.source === 'environment') await dropPostgresDatabases(postgres.url, ours);
  await Promise.all([rabbitmq.stop(), mysql.stop(), postgres?.stop()]);
  // In watch mode the next run must not take the stopped servers for ones given by the user.
  for (const [variable, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[variable];
    else process.env[variable] = value;
  }
}

import { dropMysqlDatabases } from '@escrowmq/local-servers';

/**
 * Jest's globalTeardown: ends what start-servers.mjs started. A server that was given by the
 * environment goes on, so the databases of this run are dropped there.
 */
export default async function stopServers() {
  const { rabbitmq, mysql, run, before } = globalThis.escrowTestServers;
  if (mysql.source === 'environment') await dropMysqlDatabases(mysql.url, `escrow_test_${run}_`);
  await Promise.all([rabbitmq.stop(), mysql.stop()]);
  // In watch mode the next run must not take the stopped servers for ones given by the user.
  for (const [variable, value] of Object.entries(before)) {
    if (value === undefined) delete process.env[variable];
    else process.env[variable] = value;
  }
}

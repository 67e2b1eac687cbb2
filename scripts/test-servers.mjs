import { runJest } from './jest.mjs';
import { end, orEnd } from './or-end.mjs';
import { setUp } from './setup.mjs';
import { testServersArguments } from './test-servers-arguments.mjs';

/*
 * npm run test:servers -- --with debian-13                      what fits, on the servers of Debian 13
 * npm run test:servers -- --with debian-sid test/system/rabbit  the rest goes to jest
 *
 * A set that can't be had here is said to be SKIPPED, and why; with ESCROW_TEST_NO_SKIPS=1 that is a
 * failure. Servers that the environment names are left alone: this is about those of a set.
 */

const GIVEN_SERVERS = ['ESCROW_TEST_RABBITMQ', 'ESCROW_TEST_MYSQL', 'ESCROW_TEST_POSTGRES'];

const { servers, jest } = orEnd(() => testServersArguments(process.argv.slice(2)));
await setUp({ forTests: true });
const { parseServerSet, serverSetProblem, serverVersions } = await import(
  '@escrowmq/local-servers'
);
const set = orEnd(() => parseServerSet(servers, '--with'));
const problem = await serverSetProblem(set);
if (problem !== undefined) {
  end(`SKIPPED: ${problem}`, process.env.ESCROW_TEST_NO_SKIPS === '1' ? 1 : 0);
}
process.stdout.write(`${[`${set}:`, ...(await serverVersions(set))].join('\n  ')}\n`);
for (const variable of GIVEN_SERVERS) delete process.env[variable];
process.env.ESCROW_TEST_SERVERS = set;
runJest(jest);

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, SetUpFailure, setUp } from './setup.mjs';

/*
 * npm run demo: a service whose users are sharded by id keeps an index of their phone numbers
 * elsewhere, and the two agree. In this very process, so that Ctrl-C and the exit code are the
 * demo's own; arguments after `--` are passed on.
 */

const EXAMPLE = 'examples/sharding-key-binding';

await setUp({ run: EXAMPLE, meanwhile: installServers });
const demo = join(ROOT, EXAMPLE, 'dist', 'demo.js');
process.argv[1] = demo;
await import(pathToFileURL(demo).href);

/** The demo would do so as well: here it happens while an addon is compiled. */
async function installServers({ begin, say }) {
  const { ensureServerPackages } = await import('@escrowmq/local-servers');
  const end = begin('installing servers');
  await ensureServerPackages(['rabbitmq', 'mysql'], say)
    .catch((error) => {
      throw new SetUpFailure(error.message);
    })
    .finally(end);
}

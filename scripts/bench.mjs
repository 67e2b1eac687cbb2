import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, setUp } from './setup.mjs';

/*
 * npm run bench                  EscrowMQ against bare confirmed publishing
 * npm run bench -- --quick       what matters most of it, under three minutes
 * npm run bench:peers            EscrowMQ beside its peers
 *
 * In this very process, so that Ctrl-C and the exit code are the bench's own.
 */

const args = process.argv.slice(2);
const peers = args[0] === '--peers';

await setUp({ run: 'bench' });
const main = join(ROOT, 'bench', 'dist', peers ? 'peers-main.js' : 'main.js');
process.argv.splice(1, process.argv.length, main, ...args.slice(peers ? 1 : 0));
await import(pathToFileURL(main).href);

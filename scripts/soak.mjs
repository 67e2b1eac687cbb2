import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, setUp } from './setup.mjs';

/*
 * npm run soak                                    12,000 transactions, a fresh seed
 * npm run soak -- --transactions 12000 --seed 1   the faults of that seed again
 *
 * In this very process, so that Ctrl-C and the exit code are the soak's own.
 */

await setUp({ run: 'soak' });
const main = join(ROOT, 'soak', 'dist', 'main.js');
process.argv.splice(1, process.argv.length, main, ...process.argv.slice(2));
await import(pathToFileURL(main).href);

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, setUp } from './setup.mjs';

/*
 * npm start: runs the broker. In this very process, so that signals, the terminal and the exit code
 * are the broker's own, with nothing in between to pass them on.
 */

await setUp({ run: 'broker' });
const main = join(ROOT, 'broker', 'dist', 'main.js');
process.argv[1] = main;
await import(pathToFileURL(main).href);

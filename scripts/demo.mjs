import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT, setUp } from './setup.mjs';

/*
 * npm run demo: a service whose users are sharded by id keeps an index of their phone numbers
 * elsewhere, and the two agree. In this very process, so that Ctrl-C and the exit code are the
 * demo's own; arguments after `--` are passed on.
 */

await setUp();
const demo = join(ROOT, 'examples', 'sharding-key-binding', 'dist', 'demo.js');
process.argv[1] = demo;
await import(pathToFileURL(demo).href);

import { spawnSync } from 'node:child_process';
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './setup.mjs';

/*
 * node scripts/build-packages.mjs    what others install: ES modules into dist, CommonJS into dist/cjs
 *
 * Two passes of the compiler over the same sources, so that each kind has declarations of its own.
 * Packing a package runs it.
 */

/** Each imports those before it. */
const PACKAGES = ['protocol', 'database', 'producer-sdk', 'consumer-sdk'];

compile('-b', ...PACKAGES);
for (const name of PACKAGES) {
  const folder = join(ROOT, name, 'dist', 'cjs');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  // Without it, Node would take these files for what the package is: ES modules.
  writeFileSync(join(folder, 'package.json'), '{ "type": "commonjs" }\n');
  compile('-p', join(name, 'tsconfig.cjs.json'));
}

function compile(...args) {
  const tsc = join('node_modules', 'typescript', 'bin', 'tsc');
  const { status } = spawnSync(process.execPath, [tsc, ...args], { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

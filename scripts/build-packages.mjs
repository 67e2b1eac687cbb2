import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { ROOT } from './setup.mjs';

/*
 * node scripts/build-packages.mjs    what others install: ES modules into dist, and of what is imported
 *                                    CommonJS into dist/cjs
 *
 * Each kind has declarations of its own, as a declaration's kind is that of its folder; their text is the
 * same. Packing a package runs it. It begins with nothing, so that no file of a source that is gone is
 * packed.
 */

/** The folders of the packages that others install; each needs only those before it. */
export const PACKAGES = ['protocol', 'database', 'producer-sdk', 'consumer-sdk', 'broker'];

/**
 * @param root the repository, or a copy of these packages with links to what is installed
 * @param check whether types are checked, which takes longer than the rest
 */
export function buildPackages(root, { check }) {
  for (const name of PACKAGES) rmSync(join(root, name, 'dist'), { recursive: true, force: true });
  compile(root, '-b', ...PACKAGES, ...(check ? [] : ['--noCheck']));
  for (const name of PACKAGES) {
    // The broker is run, never imported.
    if (!existsSync(join(root, name, 'tsconfig.cjs.json'))) continue;
    const built = join(root, name, 'dist');
    const declarations = readdirSync(built, { recursive: true }).filter((path) =>
      /\.d\.ts$/.test(path),
    );
    for (const path of declarations) cpSync(join(built, path), join(built, 'cjs', path));
    // Without it, Node would take these files for what the package is: ES modules.
    writeFileSync(join(built, 'cjs', 'package.json'), '{ "type": "commonjs" }\n');
    compile(root, '-p', join(name, 'tsconfig.cjs.json'));
  }
}

function compile(root, ...args) {
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  const { status } = spawnSync(process.execPath, [tsc, ...args], { cwd: root, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

if (resolve(process.argv[1] ?? '') === fileURLToPath(import.meta.url)) {
  buildPackages(ROOT, { check: true });
}

import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { buildPackages, PACKAGES } from './build-packages.mjs';
import { npm, ROOT } from './setup.mjs';

/*
 * Packs what others install from a copy of the sources, built there from nothing: what is running here
 * keeps its build, and nothing that lies about in this one is packed.
 */

const run = promisify(execFile);

/** What the compiler reads besides the folders of the packages. */
const SHARED = ['tsconfig.base.json', 'tsconfig.cjs.json'];
const NOT_COPIED = new Set(['dist', 'node_modules']);

/**
 * Packs every package into `folder`, and writes SHA256SUMS beside them, for `sha256sum --check`.
 *
 * @returns the files, those first that others depend on
 */
export async function packPackages(folder) {
  await mkdir(folder, { recursive: true });
  const copy = await mkdtemp(join(tmpdir(), 'escrow-pack-'));
  try {
    await copySources(copy);
    // `npm run check`, a part of every release, has checked these sources.
    buildPackages(copy, { check: false });
    const files = await Promise.all(PACKAGES.map((name) => pack(join(copy, name), folder)));
    await writeFile(join(folder, 'SHA256SUMS'), await checksums(folder, files));
    return files;
  } finally {
    await rm(copy, { recursive: true, force: true });
  }
}

/** The packages find each other in the copy, and everything else where it is installed. */
async function copySources(copy) {
  for (const name of SHARED) await cp(join(ROOT, name), join(copy, name));
  const modules = join(copy, 'node_modules');
  await mkdir(join(modules, '@escrowmq'), { recursive: true });
  for (const name of PACKAGES) {
    const filter = (path) => !NOT_COPIED.has(path.slice(join(ROOT, name).length + 1));
    await cp(join(ROOT, name), join(copy, name), { recursive: true, filter });
    await symlink(join(copy, name), join(modules, (await manifestOf(join(copy, name))).name));
  }
  for (const name of await readdir(join(ROOT, 'node_modules'))) {
    if (name === '@escrowmq' || name.startsWith('.')) continue;
    await symlink(join(ROOT, 'node_modules', name), join(modules, name));
  }
}

/** The name is npm's: @escrowmq/producer becomes escrowmq-producer-0.2.0.tgz. */
async function pack(packageFolder, folder) {
  const [command, ...args] = npm();
  const { name, version } = await manifestOf(packageFolder);
  await run(command, [...args, 'pack', '--ignore-scripts', '--pack-destination', folder], {
    cwd: packageFolder,
  });
  return `${name.replace('@', '').replace('/', '-')}-${version}.tgz`;
}

async function manifestOf(packageFolder) {
  return JSON.parse(await readFile(join(packageFolder, 'package.json'), 'utf8'));
}

/** npm gives every file the same date, so the same sources and compiler give the same sums. */
async function checksums(folder, files) {
  const lines = files.map(async (file) => {
    const sum = createHash('sha256').update(await readFile(join(folder, file)));
    return `${sum.digest('hex')}  ${file}\n`;
  });
  return (await Promise.all(lines)).join('');
}

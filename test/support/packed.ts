import { execFile } from 'node:child_process';
import { cp, mkdir, readFile, rm, symlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/** The root of this repository. */
export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
/** The folders of the packages that others import. */
const IMPORTED_FOLDERS = ['protocol', 'database', 'producer-sdk', 'consumer-sdk'];
/** The folders of the packages that others install; the broker is run, not imported. */
export const PACKAGE_FOLDERS = [...IMPORTED_FOLDERS, 'broker'];

const run = promisify(execFile);

export interface Packed {
  name: string;
  folder: string;
  tarball: string;
  manifest: { exports?: Record<string, unknown>; dependencies?: Record<string, string> };
}

/**
 * What `npm run release` packs of the sources as they are, in `home`.
 *
 * @returns the packages, and what the command printed
 */
export async function packRelease(home: string): Promise<{ packages: Packed[]; said: string }> {
  const release = [join(ROOT, 'scripts', 'release.mjs'), '--only-pack', '--into', home];
  const { stdout: said } = await run(process.execPath, release, { cwd: ROOT });
  const packages = PACKAGE_FOLDERS.map((folder) => packedOf(home, ROOT, folder));
  return { packages: await Promise.all(packages), said };
}

/** Packs what is built under `root`, of what others import, into `home`. */
export async function packInto(home: string, root: string): Promise<Packed[]> {
  const pack = async (folder: string): Promise<Packed> => {
    const packed = ['pack', '--ignore-scripts', '--json', '--pack-destination', home];
    await run('npm', packed, { cwd: join(root, folder) });
    return packedOf(home, root, folder);
  };
  return Promise.all(IMPORTED_FOLDERS.map(pack));
}

async function packedOf(home: string, root: string, folder: string): Promise<Packed> {
  const manifest = JSON.parse(await readFile(join(root, folder, 'package.json'), 'utf8'));
  const file = `${manifest.name.replace('@', '').replace('/', '-')}-${manifest.version}.tgz`;
  return { name: manifest.name, folder, tarball: join(home, file), manifest };
}

/**
 * Into `home/node_modules`: the packages, and links to what they depend on.
 *
 * @param peers what else is linked there
 */
export async function installPacked(
  home: string,
  packages: readonly Packed[],
  peers: readonly string[],
): Promise<void> {
  const modules = join(home, 'node_modules');
  const linked = new Set(peers);
  for (const { name, tarball, manifest } of packages) {
    const unpacked = join(home, 'unpacked');
    await mkdir(unpacked, { recursive: true });
    await run('tar', ['-xzf', tarball, '-C', unpacked]);
    await cp(join(unpacked, 'package'), join(modules, name), { recursive: true });
    await rm(unpacked, { recursive: true });
    for (const dependency of Object.keys(manifest.dependencies ?? {})) {
      if (!dependency.startsWith('@escrowmq/')) linked.add(dependency);
    }
  }
  for (const name of linked) {
    await mkdir(dirname(join(modules, name)), { recursive: true });
    await symlink(join(ROOT, 'node_modules', name), join(modules, name));
  }
}

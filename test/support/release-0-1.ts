import { execFile, spawnSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { installPacked, packInto, ROOT } from './packed.js';

const run = promisify(execFile);

/** The last commit of 0.1. */
const COMMIT = '8442033';

/** Why 0.1 can not be built here; `undefined` where it can. */
export function release01Problem(): string | undefined {
  const { status } = spawnSync('git', ['cat-file', '-e', `${COMMIT}^{commit}`], { cwd: ROOT });
  if (status === 0) return undefined;
  return `0.1 can not be built: the history here lacks commit ${COMMIT}; fetch the whole of it (git fetch --unshallow)`;
}

export interface Release01 {
  folder: string;
  /** Entry file of its broker. */
  broker: string;
  /** A folder in which its packages are installed, as packed. */
  home: string;
}

/** Builds 0.1 with the compiler and the dependencies of today, and packs its SDKs. */
export async function buildRelease01(): Promise<Release01> {
  const folder = await mkdtemp(join(tmpdir(), 'escrow-0-1-'));
  const archive = join(folder, '0.1.tar');
  await run('git', ['archive', '--output', archive, COMMIT], { cwd: ROOT });
  await run('tar', ['-xf', archive, '-C', folder]);
  await linkModules(folder);
  // Its types were checked when it was written; the newer ones of its dependencies do not matter.
  const tsc = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc');
  await run(process.execPath, [tsc, '-b', '--noCheck', 'broker', 'producer-sdk'], { cwd: folder });
  const home = join(folder, 'home');
  await mkdir(home);
  await installPacked(home, await packInto(home, folder), ['mysql2']);
  return { folder, broker: join(folder, 'broker', 'dist', 'main.js'), home };
}

/** The dependencies of this repository, and the workspaces of that one. */
async function linkModules(folder: string): Promise<void> {
  const modules = join(folder, 'node_modules');
  await mkdir(join(modules, '@escrowmq'), { recursive: true });
  for (const name of await readdir(join(ROOT, 'node_modules'))) {
    if (name === '@escrowmq' || name.startsWith('.')) continue;
    await symlink(join(ROOT, 'node_modules', name), join(modules, name));
  }
  const workspaces = {
    protocol: 'protocol',
    database: 'database',
    broker: 'broker',
    producer: 'producer-sdk',
    consumer: 'consumer-sdk',
  };
  for (const [name, workspace] of Object.entries(workspaces)) {
    await symlink(join(folder, workspace), join(modules, '@escrowmq', name));
  }
}

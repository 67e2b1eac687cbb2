import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Packed, ROOT } from './packed.js';
import { insideFunction } from './readme.js';

/*
 * Services of their own, as users have them, into which npm has installed the packed files.
 */

const run = promisify(execFile);
/** The project's own compiler: `node10` is gone in later ones. */
export const TSC = join(ROOT, 'node_modules', 'typescript', 'lib', 'tsc.js');

interface Kind {
  type: 'module' | 'commonjs';
  compilerOptions: Record<string, unknown>;
}
const KINDS = {
  'ES modules': { type: 'module', compilerOptions: { module: 'NodeNext' } },
  CommonJS: { type: 'commonjs', compilerOptions: { module: 'NodeNext' } },
  'moduleResolution node10': {
    type: 'commonjs',
    compilerOptions: {
      module: 'CommonJS',
      moduleResolution: 'node10',
      esModuleInterop: true,
      ignoreDeprecations: '6.0',
    },
  },
} as const satisfies Record<string, Kind>;

export type ProjectKind = keyof typeof KINDS;
export const PROJECT_KINDS = Object.keys(KINDS) as ProjectKind[];

export interface Projects {
  /** Where npm has installed; the projects are folders in it. */
  home: string;
  /** Compiles the programs strictly; throws what the compiler says. */
  compile(kind: ProjectKind, programs: Record<string, string>): Promise<void>;
  /** Runs one of them. @returns what it prints */
  run(kind: ProjectKind, program: string, env: Record<string, string>): Promise<string>;
  remove(): Promise<void>;
}

/**
 * The packages come from their files alone: npm would ask a registry for one that is missing, and no
 * registry has them. What they depend on comes from npm's cache or its registry.
 *
 * @param others what the programs need besides, as `name@version`
 */
export async function installProjects(packages: Packed[], others: string[]): Promise<Projects> {
  const home = await mkdtemp(join(tmpdir(), 'escrow-projects-'));
  await writeFile(join(home, 'package.json'), '{ "private": true }');
  const quiet = ['--prefer-offline', '--ignore-scripts', '--no-audit', '--no-fund'];
  const tarballs = packages.map(({ tarball }) => tarball);
  // better-sqlite3 would only be compiled.
  await run('npm', ['install', '--omit=optional', ...quiet, ...tarballs, ...others], { cwd: home });
  for (const kind of PROJECT_KINDS) await makeProject(join(home, kind), KINDS[kind]);
  return {
    home,
    compile: async (kind, programs) => {
      for (const [name, source] of Object.entries(programs)) {
        const isModule = KINDS[kind].type === 'module';
        await writeFile(join(home, kind, `${name}.ts`), isModule ? source : insideFunction(source));
      }
      await run(process.execPath, [TSC, '-p', '.'], { cwd: join(home, kind) }).catch((error) => {
        throw new Error(`${kind}: ${error.stdout}`);
      });
    },
    run: async (kind, program, env) => {
      const cwd = join(home, kind);
      const file = [join('built', `${program}.js`)];
      const { stdout } = await run(process.execPath, file, { cwd, env, timeout: 30_000 });
      return stdout;
    },
    remove: () => rm(home, { recursive: true, force: true }),
  };
}

async function makeProject(folder: string, { type, compilerOptions }: Kind): Promise<void> {
  await mkdir(folder);
  await writeFile(join(folder, 'package.json'), JSON.stringify({ private: true, type }));
  const shared = { target: 'ES2022', types: ['node'], strict: true, skipLibCheck: true };
  const config = {
    compilerOptions: { ...shared, rootDir: '.', outDir: 'built', ...compilerOptions },
    include: ['*.ts'],
  };
  await writeFile(join(folder, 'tsconfig.json'), JSON.stringify(config));
}

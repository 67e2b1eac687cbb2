import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { type BrokerProcess, startBrokerProcess } from '../support/broker-process.js';
import {
  installPacked,
  PACKAGE_FOLDERS,
  type Packed,
  packRelease,
  ROOT,
} from '../support/packed.js';
import { installProjects, PROJECT_KINDS, type Projects, TSC } from '../support/packed-projects.js';
import { blocksOf, README_PRINTS, readmeEnvironment, readmeProgram } from '../support/readme.js';
import { freshMysqlDatabase, rabbitmqUrl } from '../support/servers.js';

/*
 * The packages as others install them: packed as for a release, and unpacked beside nothing but their
 * dependencies.
 */

const BIN = join(ROOT, 'node_modules', '.bin');
const run = promisify(execFile);
/** Compilers run for half a minute on a machine that does nothing else. */
const COMPILED_MS_MAX = 400_000;

let home: string;
let packages: Packed[] = [];
let said = '';

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'escrow-packages-'));
  ({ packages, said } = await packRelease(home));
  // A peer that an entry of its own imports; the others are handed over by whoever uses them.
  await installPacked(home, packages, ['@types/node', '@opentelemetry/api']);
}, COMPILED_MS_MAX);
afterAll(() => rm(home, { recursive: true, force: true }));

const imported = () => packages.filter(({ manifest }) => manifest.exports !== undefined);

/** `@escrowmq/producer`, `@escrowmq/database/knex`, … */
const entries = (): string[] =>
  imported().flatMap(({ name, manifest }) =>
    Object.keys(manifest.exports ?? {})
      .filter((path) => path !== './package.json')
      .map((path) => name + path.slice(1)),
  );

async function node(file: string, source: string): Promise<string> {
  await writeFile(join(home, file), source);
  const { stdout } = await run(process.execPath, [file], { cwd: home });
  return stdout.trim();
}

test('a release has checksums that fit, and says in which order to publish what it packed', async () => {
  await run('sha256sum', ['--check', '--strict', 'SHA256SUMS'], { cwd: home });
  const published = [...said.matchAll(/npm publish \.\/(\S+) --access public --provenance/g)];
  const files = published.map(([, file = '']) => join(home, file));
  expect([...files].sort()).toEqual(packages.map(({ tarball }) => tarball).sort());
  const order = files.map((file) => packages.find(({ tarball }) => tarball === file) as Packed);
  order.forEach(({ manifest }, index) => {
    const before = order.slice(0, index).map(({ name }) => name);
    const needed = Object.keys(manifest.dependencies ?? {});
    expect(before).toEqual(
      expect.arrayContaining(needed.filter((name) => name.startsWith('@escrowmq/'))),
    );
  });
});

test('every entry of every package can be imported and required, and has the same exports', async () => {
  const list = JSON.stringify(entries());
  const namesOf = `Object.keys(module).filter((name) => !['default', '__esModule', 'module.exports'].includes(name)).sort()`;
  const imports = await node(
    'imports.mjs',
    `for (const entry of ${list}) { const module = await import(entry); console.log(entry, ${namesOf}.join()); }`,
  );
  const required = (file: string, load: string) =>
    node(
      file,
      `for (const entry of ${list}) { const module = ${load}; console.log(entry, ${namesOf}.join()); }`,
    );
  expect(await required('requires.cjs', 'require(entry)')).toBe(imports);
  expect(imports).toContain('createProducer');
  // Bundlers that resolve `import` for everybody hand the ES modules to `require`, which Node takes.
  const asModule = `require(require.resolve(entry).replace('/dist/cjs/', '/dist/'))`;
  expect(await required('requires-modules.cjs', asModule)).toBe(imports);
});

describe.each(PACKAGE_FOLDERS)('%s', (folder) => {
  const packageOf = () => packages.find((each) => each.folder === folder) as Packed;
  const unpacked = () => join(home, 'node_modules', packageOf().name);
  const read = (path: string) => readFile(join(unpacked(), path), 'utf8');

  test('has nothing that a linter of packages minds', async () => {
    const { stdout } = await run(join(BIN, 'publint'), ['run', packageOf().tarball, '--strict'], {
      cwd: ROOT,
    });
    expect(stdout).toMatch(/All good/);
  });

  test('has the right types for whoever imports and whoever requires it, however they are looked up', async () => {
    // The broker is run, and has no types.
    if (packageOf().manifest.exports === undefined) return;
    const flags = [packageOf().tarball, '--profile', 'strict', '--format', 'json'];
    const { stdout } = await run(join(BIN, 'attw'), flags, { cwd: ROOT }).catch((error) => error);
    expect(Object.values(JSON.parse(stdout).problems).flat()).toEqual([]);
  });

  test('N14: has a licence, a page of its own, and what is built; nothing else', async () => {
    expect((await readdir(unpacked())).sort()).toEqual([
      'LICENSE',
      'README.md',
      'dist',
      'package.json',
    ]);
    expect(await read('LICENSE')).toBe(await readFile(join(ROOT, 'LICENSE'), 'utf8'));
    expect(await read('README.md')).toMatch(new RegExp(`^# ${packageOf().name}\n`));
    const built = await readdir(join(unpacked(), 'dist'), { recursive: true });
    expect(built.filter((file) => /(^|\/)\.|\.test\.|buildinfo/.test(file))).toEqual([]);
  });

  test('N14: tells a registry whose it is, where it comes from and who may have it', async () => {
    const ours = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
    const manifest = JSON.parse(await read('package.json'));
    expect(manifest).toMatchObject({
      license: 'Apache-2.0',
      description: expect.stringMatching(/\.$/),
      keywords: expect.arrayContaining(['escrowmq', 'rabbitmq']),
      repository: { ...ours.repository, directory: folder },
      bugs: ours.bugs,
      homepage: expect.stringContaining(`/${folder}#readme`),
      engines: ours.engines,
      publishConfig: { access: 'public', provenance: true },
    });
    expect(manifest).not.toHaveProperty('private');
  });

  test('N14: names no map that it does not have, and has no map without the source in it', async () => {
    const files = await readdir(join(unpacked(), 'dist'), { recursive: true });
    const faults: string[] = [];
    for (const file of files.filter((each) => /\.(js|ts)$/.test(each))) {
      const named = /^\/\/# sourceMappingURL=(.*)$/m.exec(await read(join('dist', file)))?.[1];
      if (named !== undefined && !files.includes(join(dirname(file), named))) faults.push(file);
    }
    for (const file of files.filter((each) => each.endsWith('.map'))) {
      const { sources, sourcesContent } = JSON.parse(await read(join('dist', file)));
      if (sourcesContent?.length !== sources.length) faults.push(file);
    }
    expect(faults).toEqual([]);
  });
});

/** What a service writes that has neither a data layer's types nor `skipLibCheck`. */
const SERVICE = `import { createProducer, isEscrowError } from '@escrowmq/producer';
export const producer = createProducer({ brokers: ['http://127.0.0.1:7171'], producerGroup: 'a' });
export const code = (error: unknown) => (isEscrowError(error) ? error.code : undefined);
`;

test(
  'a service without any data layer compiles against the producer, as an ES module and as CommonJS',
  async () => {
    const files = ['service.mts', 'service.cts'];
    for (const file of files) await writeFile(join(home, file), SERVICE);
    const flags = ['--module', 'NodeNext', '--strict', '--noEmit', '--types', 'node'];
    const compile = [TSC, ...flags, '--target', 'es2023', ...files];
    const { stdout } = await run(process.execPath, compile, { cwd: home }).catch((error) => error);
    expect(stdout).toBe('');
  },
  COMPILED_MS_MAX,
);

describe('N14: installed by npm from the packed files alone', () => {
  let projects: Projects;
  let broker: BrokerProcess;
  beforeAll(async () => {
    const types = ['@types/node@22', '@types/pg@8'];
    projects = await installProjects(packages, ['mysql2@3', 'pg@8', ...types]);
    broker = await startBrokerProcess({
      store: await freshMysqlDatabase(),
      rabbitmq: rabbitmqUrl(),
      main: join(projects.home, 'node_modules', '.bin', 'escrowmq'),
    });
  }, COMPILED_MS_MAX);
  afterAll(async () => {
    await broker?.stop();
    await projects?.remove();
  });

  test(
    'what the pages show compiles in projects of every kind',
    async () => {
      const programs: Record<string, string> = { readme: await readmeProgram() };
      for (const folder of PACKAGE_FOLDERS) {
        for (const [index, source] of (await blocksOf(`${folder}/README.md`, 'ts')).entries()) {
          programs[`${folder}-${index}`] = source;
        }
      }
      expect(Object.keys(programs)).toHaveLength(PACKAGE_FOLDERS.length);
      await Promise.all(PROJECT_KINDS.map((kind) => projects.compile(kind, programs)));
    },
    COMPILED_MS_MAX,
  );

  test.each(PROJECT_KINDS)('the program of the README runs in a project of %s', async (kind) => {
    const printed = await projects.run(kind, 'readme', await readmeEnvironment(broker.url));
    expect(printed).toMatch(README_PRINTS);
  });
});

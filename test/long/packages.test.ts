import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from '@jest/globals';
import { installPacked, PACKAGE_FOLDERS, type Packed, packInto, ROOT } from '../support/packed.js';

/*
 * The packages as others install them: packed, and unpacked beside nothing but their dependencies.
 */

const BIN = join(ROOT, 'node_modules', '.bin');
const run = promisify(execFile);

let home: string;
let packages: Packed[] = [];

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'escrow-packages-'));
  await run(process.execPath, [join(ROOT, 'scripts', 'build-packages.mjs')], { cwd: ROOT });
  packages = await packInto(home);
  // A peer that an entry of its own imports; the others are handed over by whoever uses them.
  await installPacked(home, packages, ['@types/node', '@opentelemetry/api']);
});
afterAll(() => rm(home, { recursive: true, force: true }));

/** `@escrowmq/producer`, `@escrowmq/database/knex`, … */
const entries = (): string[] =>
  packages.flatMap(({ name, manifest }) =>
    Object.keys(manifest.exports).map((path) => name + path.slice(1)),
  );

async function node(file: string, source: string): Promise<string> {
  await writeFile(join(home, file), source);
  const { stdout } = await run(process.execPath, [file], { cwd: home });
  return stdout.trim();
}

test('every entry of every package can be imported and required, and has the same exports', async () => {
  const list = JSON.stringify(entries());
  const namesOf = `Object.keys(module).filter((name) => !['default', '__esModule', 'module.exports'].includes(name)).sort()`;
  const imported = await node(
    'imports.mjs',
    `for (const entry of ${list}) { const module = await import(entry); console.log(entry, ${namesOf}.join()); }`,
  );
  const required = await node(
    'requires.cjs',
    `for (const entry of ${list}) { const module = require(entry); console.log(entry, ${namesOf}.join()); }`,
  );
  expect(required).toBe(imported);
  expect(imported).toContain('createProducer');
});

describe.each(PACKAGE_FOLDERS)('%s', (folder) => {
  const packageOf = () => packages.find((each) => each.folder === folder) as Packed;

  test('has nothing that a linter of packages minds', async () => {
    const { stdout } = await run(join(BIN, 'publint'), ['run', packageOf().tarball, '--strict'], {
      cwd: ROOT,
    });
    expect(stdout).toMatch(/All good/);
  });

  test('has the right types for whoever imports and whoever requires it', async () => {
    const flags = [packageOf().tarball, '--profile', 'node16', '--format', 'json'];
    const { stdout } = await run(join(BIN, 'attw'), flags, { cwd: ROOT });
    const found: Record<string, { resolutionKind?: string }[]> = JSON.parse(stdout).problems;
    const problems = Object.values(found).flat();
    // Node 10 could not read `exports`, which is listed even where the profile leaves it out.
    expect(problems.filter(({ resolutionKind }) => resolutionKind !== 'node10')).toEqual([]);
  });

  test('packs what is built and nothing else', async () => {
    const files = await readdir(join(home, 'node_modules', packageOf().name));
    expect(files.sort()).toEqual(expect.arrayContaining(['dist', 'package.json']));
    expect(files.filter((file) => !/^(dist|package\.json|README\.md|LICENSE)$/.test(file))).toEqual(
      [],
    );
  });
});

/** What a service writes that has neither a data layer's types nor `skipLibCheck`. */
const SERVICE = `import { createProducer, isEscrowError } from '@escrowmq/producer';
export const producer = createProducer({ brokers: ['http://127.0.0.1:7171'], producerGroup: 'a' });
export const code = (error: unknown) => (isEscrowError(error) ? error.code : undefined);
`;

test.each([
  ['NodeNext', 'service.mts'],
  ['NodeNext', 'service.cts'],
])(
  'a service without any data layer compiles against the producer (%s, %s)',
  async (module, file) => {
    await writeFile(join(home, file), SERVICE);
    const flags = [
      '--module',
      module,
      '--strict',
      '--noEmit',
      '--types',
      'node',
      '--target',
      'es2023',
    ];
    const { stdout } = await run(join(BIN, 'tsc'), [...flags, file], { cwd: home }).catch(
      (error) => error,
    );
    expect(stdout).toBe('');
  },
);

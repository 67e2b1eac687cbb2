import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { ROOT } from '../support/packed.js';

/*
 * The build of a clone in which nobody has tested yet.
 */

const PROJECTS = ['protocol', 'database'];

let clone: string;
beforeEach(async () => {
  clone = await mkdtemp(join(tmpdir(), 'escrow-transpile-'));
  await cp(join(ROOT, 'tsconfig.base.json'), join(clone, 'tsconfig.base.json'));
  for (const project of PROJECTS) {
    await mkdir(join(clone, project));
    for (const part of ['tsconfig.json', 'src']) {
      await cp(join(ROOT, project, part), join(clone, project, part), { recursive: true });
    }
  }
});
afterEach(() => rm(clone, { recursive: true, force: true }));

const transpile = () =>
  promisify(execFile)(process.execPath, [join(ROOT, 'scripts', 'transpile.mjs'), 'database'], {
    cwd: clone,
  });

async function scripts(folder: string): Promise<Record<string, string>> {
  const names = await readdir(folder, { recursive: true });
  const wanted = names.filter((name) => name.endsWith('.js') && !name.startsWith('cjs'));
  const read = async (name: string) => {
    const text = await readFile(join(folder, name), 'utf8');
    return [name, text.replace(/\/\/# sourceMappingURL=.*/, '').trimEnd()];
  };
  return Object.fromEntries(await Promise.all(wanted.map(read)));
}

test('a workspace and what it refers to become the same JavaScript as by the compiler', async () => {
  await transpile();
  for (const project of PROJECTS) {
    const built = await scripts(join(clone, project, 'dist'));
    expect(Object.keys(built).length).toBeGreaterThan(10);
    expect(built).toEqual(await scripts(join(ROOT, project, 'dist')));
  }
});

test('only what changed is written again, and what does not parse is told', async () => {
  await transpile();
  const changed = join(clone, 'database', 'src', 'index.ts');
  const outputs = ['index.js', 'database.js'].map((name) => join(clone, 'database', 'dist', name));
  const times = () => Promise.all(outputs.map(async (file) => (await stat(file)).mtimeMs));
  const before = await times();
  await writeFile(changed, `${await readFile(changed, 'utf8')}export const more: number = 1;\n`);
  await transpile();
  const [index, database] = await times();
  expect(database).toBe(before[1]);
  expect(index).toBeGreaterThan(before[0] ?? 0);
  expect(await readFile(outputs[0] as string, 'utf8')).toContain('export const more = 1;');

  await writeFile(changed, 'export const = 1;');
  await expect(transpile()).rejects.toMatchObject({
    stderr: expect.stringContaining('database/src/index.ts(1,14): error TS1134'),
  });
});

import { spawn } from 'node:child_process';
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ROOT, setUp } from '../scripts/setup.mjs';
import { SABOTAGES } from './sabotages.mjs';

/*
 * npm run sabotage                 makes each of eight mistakes in a copy of the code, and runs the
 *                                  tests that must notice
 * npm run sabotage -- <part>       only those whose name has that part
 *
 * First the tests run on the code as it is: one that fails anyway catches nothing. Exits with 1 when
 * a mistake goes unnoticed.
 */

const NOT_COPIED = new Set(['node_modules', '.git', 'coverage', 'results']);
const TESTS_SHOWN_MAX = 3;
/** One run of its tests; the longest takes a minute on two cores. */
const RUN_MS_MAX = 300_000;

await setUp();
await main(process.argv[2] ?? '');

async function main(part) {
  const chosen = SABOTAGES.filter(({ name }) => name.includes(part));
  const folder = await mkdtemp(join(tmpdir(), 'escrow-sabotage-'));
  let caught = 0;
  try {
    await copyTo(folder);
    const sound = await failures(folder, [...new Set(chosen.flatMap(({ tests }) => tests))]);
    if (sound.length > 0) {
      throw new Error(`these fail without any sabotage:\n  ${sound.join('\n  ')}`);
    }
    for (const sabotage of chosen) {
      const failed = await sabotaged(folder, sabotage);
      if (failed.length > 0) caught += 1;
      report(sabotage, failed);
    }
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
  process.stdout.write(`\n${caught} of ${chosen.length} caught\n`);
  process.exitCode = caught === chosen.length ? 0 : 1;
}

function report({ name, why }, failed) {
  const verdict = failed.length > 0 ? 'caught' : 'NOT CAUGHT';
  process.stdout.write(`${verdict}: ${name} (${why})\n`);
  for (const test of failed.slice(0, TESTS_SHOWN_MAX)) process.stdout.write(`    by ${test}\n`);
  const more = failed.length - TESTS_SHOWN_MAX;
  if (more > 0) process.stdout.write(`    and ${more} more\n`);
}

/** Sources and build; of what is installed only links, but links of its own to our packages. */
async function copyTo(folder) {
  for (const name of await readdir(ROOT)) {
    if (!NOT_COPIED.has(name))
      await cp(join(ROOT, name), join(folder, name), { recursive: true, filter: isCopied });
  }
  const modules = join(folder, 'node_modules');
  await mkdir(modules);
  for (const name of await readdir(join(ROOT, 'node_modules'))) {
    const installed = join(ROOT, 'node_modules', name);
    if (name === '@escrowmq')
      await cp(installed, join(modules, name), { recursive: true, verbatimSymlinks: true });
    else await symlink(installed, join(modules, name));
  }
}

function isCopied(path) {
  return !NOT_COPIED.has(path.split('/').at(-1) ?? '');
}

/** The tests that notice; the code is as it was afterwards. */
async function sabotaged(folder, { edits, tests }) {
  const originals = new Map();
  try {
    for (const { file, from, to } of edits) {
      const path = join(folder, file);
      const text = await readFile(path, 'utf8');
      if (!originals.has(path)) originals.set(path, text);
      if (text.split(from).length !== 2) throw new Error(`${file} has not exactly one ${from}`);
      await writeFile(
        path,
        text.replace(from, () => to),
      );
    }
    return await failures(folder, tests);
  } finally {
    for (const [path, text] of originals) await writeFile(path, text);
  }
}

/** Full names of the tests in these files that fail. */
async function failures(folder, tests) {
  // Broken on purpose: what it means to the compiler is of no interest, as long as it writes.
  await run(folder, [
    join('node_modules', 'typescript', 'bin', 'tsc'),
    '-b',
    '--noEmitOnError',
    'false',
  ]);
  const report = join(folder, 'report.json');
  const jest = join('node_modules', 'jest', 'bin', 'jest.js');
  const said = await run(folder, [
    '--experimental-vm-modules',
    '--disable-warning=ExperimentalWarning',
    jest,
    '--json',
    `--outputFile=${report}`,
    ...tests,
  ]);
  const { testResults } = JSON.parse(
    await readFile(report, 'utf8').catch(() => {
      throw new Error(`jest ended without a report:\n${said}`);
    }),
  );
  await rm(report);
  return testResults.flatMap(({ name, status, assertionResults }) => {
    const failed = assertionResults.filter(({ status }) => status === 'failed');
    if (failed.length === 0 && status === 'failed')
      return [`${name.slice(folder.length + 1)} itself`];
    return failed.map(({ fullName }) => `${name.slice(folder.length + 1)}: ${fullName}`);
  });
}

function run(folder, args) {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: folder, timeout: RUN_MS_MAX });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        said += text;
      });
    }
    child.once('error', reject);
    child.once('close', () => resolve(said));
  });
}

import { spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BETTER_SQLITE3 } from './better-sqlite3.mjs';
import { isInstalled, packagesToInstall } from './packages-to-install.mjs';
import { createProgress } from './progress.mjs';

/*
 * What every other script does first: a fresh clone becomes one that runs, and a clone that is
 * ready is left alone in about a second. Needs nothing but Node: no package is installed yet when
 * this file is read. Tells how far a step is that takes a while, and the whole output of a step
 * that fails.
 *
 * May be ended at any moment: npm writes its record when an install is complete, and without the
 * record the next run begins anew; a build writes no half file that passes for a whole one.
 */

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The same as "engines" in package.json; npm only warns, so it is checked here. */
const NODE_MIN = [20, 19];

const LOCK_FILE = join(ROOT, 'package-lock.json');

/**
 * What npm installed, as npm writes it down. Comparing that with the lock file also sees an install
 * that the user made by hand, which a mark of our own would not.
 */
const NPM_RECORD = join(ROOT, 'node_modules', '.package-lock.json');

/** Which SQLite driver the broker finds: the one built into Node from 22.13, or the addon. */
const LOAD_SQLITE_DRIVER = `
const [major, minor] = process.versions.node.split('.').map(Number);
if (major > 22 || (major === 22 && minor >= 13)) require('node:sqlite');
else { const Database = require('better-sqlite3'); new Database(':memory:').close(); }
`;

/** A step of the set-up failed; the message is all that the user needs to see. */
export class SetUpFailure extends Error {}

const progress = createProgress(process.stderr);

/**
 * Checks Node, installs what the lock file asks for, makes sure that SQLite loads, and builds.
 * Prints what is wrong and ends the process with code 1 when that is not possible.
 *
 * @param {object} [options]
 * @param {string} [options.run] the folder of the workspace that is to run: then what only tests and checks
 *   need is left out where it is not there already @default everything
 * @param {boolean} [options.forTests] they want better-sqlite3 on every Node @default false
 * @param {(progress: ReturnType<typeof createProgress>) => Promise<void>} [options.meanwhile] what
 *   else takes long and needs no more than the build: better-sqlite3 may still be compiled beside it
 */
export async function setUp({ run, meanwhile, forTests = false } = {}) {
  try {
    checkNode();
    useLocalHeaders();
    await installPackages({ forTests: run === undefined });
    if (forTests) await ensureTestDriver();
    await allOf(
      ensureSqliteDriver(),
      build(run).then(() => meanwhile?.(progress)),
    );
    loadBuiltInSqlite();
  } catch (error) {
    if (!(error instanceof SetUpFailure)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
}

/** Throws what one threw after all have ended: nothing goes on behind a process that is gone. */
async function allOf(...promises) {
  const failed = (await Promise.allSettled(promises)).find(({ status }) => status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  const [majorMin, minorMin] = NODE_MIN;
  if (major > majorMin || (major === majorMin && minor >= minorMin)) return;
  throw new SetUpFailure(
    `EscrowMQ needs Node ${majorMin}.${minorMin} or later, and this is ${process.version}. Node 24 is a good choice.`,
  );
}

/**
 * better-sqlite3 is compiled where no binary can be downloaded, and the compiler needs Node's
 * headers, which npm would download as well. Where they lie beside Node, or where Linux
 * distributions put them, no network is needed. Headers of another major version would build an
 * addon that does not load.
 */
function useLocalHeaders() {
  // The first is what the user set, which may have been for the Node that was here before.
  const set = process.env.npm_config_nodedir;
  const prefixes = [set, dirname(dirname(process.execPath)), '/usr', '/usr/local'];
  const prefix = prefixes.find((candidate) => {
    if (!candidate) return false;
    const header = join(candidate, 'include', 'node', 'node_version.h');
    if (!existsSync(header)) return false;
    const major = /#define NODE_MAJOR_VERSION (\d+)/.exec(readFileSync(header, 'utf8'))?.[1];
    return major === process.versions.node.split('.')[0];
  });
  if (prefix !== undefined) process.env.npm_config_nodedir = prefix;
}

async function installPackages(need) {
  const present = existsSync(NPM_RECORD) ? readPackages(NPM_RECORD) : undefined;
  const { how, forTests } = packagesToInstall(readPackages(LOCK_FILE), present, need);
  const flags = ['--no-audit', '--no-fund', forTests ? '--include=dev' : '--omit=dev'];
  if (how === 'anew') {
    // The one addon of a run is compiled later, where this Node needs it, and beside other steps.
    if (!forTests) flags.push('--ignore-scripts');
    await step('installing packages', [...npm(), 'ci', ...flags]);
  }
  if (how === 'add') {
    // Until npm has written it again: what is added is half there.
    rmSync(NPM_RECORD, { force: true });
    await step('installing more packages', [...npm(), 'install', '--no-save', ...flags]);
  }
}

function readPackages(lockFile) {
  return JSON.parse(readFileSync(lockFile, 'utf8')).packages;
}

/** Everything, with its types checked, where what the compiler looks at is installed. */
function build(workspace) {
  const all = { forTests: true };
  if (!workspace || isInstalled(readPackages(LOCK_FILE), readPackages(NPM_RECORD), all)) {
    return step('building', [process.execPath, 'node_modules/typescript/bin/tsc', '-b']);
  }
  return step('building', [process.execPath, 'scripts/transpile.mjs', workspace]);
}

/**
 * The addon is an optional dependency: when it can't be compiled, npm goes on without it and says
 * nothing. And one that was compiled for another version of Node does not load in this one.
 */
async function ensureSqliteDriver() {
  const load = [process.execPath, '--eval', LOAD_SQLITE_DRIVER];
  if ((await run(load)).code === 0) return;
  await step('compiling better-sqlite3', [...npm(), 'rebuild', 'better-sqlite3'], {
    mayFail: true,
  });
  const second = await run(load);
  if (second.code === 0) return;
  const reason = /^\w*Error: .*$/m.exec(second.output)?.[0] ?? `exit code ${second.code}`;
  throw new SetUpFailure(
    `No SQLite driver loads on Node ${process.version} (${reason}). Either use Node 22.13 or later, which has ` +
      'one built in; or let better-sqlite3 be compiled: install a C++ compiler, make and python3 (on Debian: ' +
      "apt-get install build-essential python3), make Node's headers available (npm downloads them, or set " +
      'npm_config_nodedir to the folder that holds include/node), and run: npm rebuild better-sqlite3',
  );
}

/**
 * Tests use better-sqlite3 where the broker does not, in the version that loads on this Node: npm leaves
 * out 13 where it installs on Node 20, and what it compiled there loads on no other.
 */
async function ensureTestDriver() {
  const load = [
    process.execPath,
    '--eval',
    `const Database = require('${BETTER_SQLITE3}'); new Database(':memory:').close();`,
  ];
  if ((await run(load)).code === 0) return;
  const command =
    BETTER_SQLITE3 === 'better-sqlite3'
      ? ['rebuild', BETTER_SQLITE3]
      : ['install', '--no-save', '--ignore-scripts', '--no-audit', '--no-fund'];
  await step(`installing ${BETTER_SQLITE3}`, [...npm(), ...command], { mayFail: true });
  if ((await run(load)).code === 0) return;
  process.stderr.write(
    `${BETTER_SQLITE3} does not load on Node ${process.version}: what tests it will fail\n`,
  );
}

/**
 * Node 22 and 23 warn, at the first time in a process, that `node:sqlite` is experimental. Our tests run
 * on it, so that is nothing to tell whoever runs the demo, the soak or the bench in this process.
 */
function loadBuiltInSqlite() {
  const emitWarning = process.emitWarning;
  process.emitWarning = () => undefined;
  try {
    process.getBuiltinModule('node:sqlite');
  } finally {
    process.emitWarning = emitWarning;
  }
}

/** The npm that runs this script, so that a version manager's choice holds. */
export function npm() {
  const cli = process.env.npm_execpath;
  return cli?.endsWith('.js') ? [process.execPath, cli] : ['npm'];
}

/** Runs a command that must succeed, and tells of it when it takes a while. */
async function step(label, command, { mayFail = false } = {}) {
  const end = progress.begin(label);
  const { code, output } = await run(command).finally(end);
  if (code !== 0 && !mayFail) {
    throw new SetUpFailure(`${output}\n${label} failed with exit code ${code}`);
  }
}

/** Runs a command in the root folder and collects what it prints. */
async function run([command, ...args]) {
  const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
    });
  }
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject).once('close', resolve);
  });
  return { code, output };
}

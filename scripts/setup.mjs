import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { BETTER_SQLITE3 } from './better-sqlite3.mjs';

/*
 * What every other script does first: a fresh clone becomes one that runs, and a clone that is
 * ready is left alone in about a second. Needs nothing but Node: no package is installed yet when
 * this file is read. Prints one line for a step that takes a while, and the whole output of a step
 * that fails.
 */

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '..');

/** The same as "engines" in package.json; npm only warns, so it is checked here. */
const NODE_MIN = [20, 19];

/** A step that is done sooner is not worth a line. */
const QUIET_MS = 2_000;

/** Which SQLite driver the broker finds: the one built into Node from 22.13, or the addon. */
const LOAD_SQLITE_DRIVER = `
const [major, minor] = process.versions.node.split('.').map(Number);
if (major > 22 || (major === 22 && minor >= 13)) require('node:sqlite');
else { const Database = require('better-sqlite3'); new Database(':memory:').close(); }
`;

/** A step of the set-up failed; the message is all that the user needs to see. */
class SetUpFailure extends Error {}

/**
 * Checks Node, installs what the lock file asks for, makes sure that SQLite loads, and builds.
 * Prints what is wrong and ends the process with code 1 when that is not possible.
 * @param {{ forTests?: boolean }} options `forTests`: they want better-sqlite3 on every Node
 */
export async function setUp({ forTests = false } = {}) {
  try {
    checkNode();
    useLocalHeaders();
    await installPackages();
    await ensureSqliteDriver();
    if (forTests) await ensureTestDriver();
    loadBuiltInSqlite();
    await step('building', [
      process.execPath,
      join('node_modules', 'typescript', 'bin', 'tsc'),
      '-b',
    ]);
  } catch (error) {
    if (!(error instanceof SetUpFailure)) throw error;
    process.stderr.write(`${error.message}\n`);
    process.exit(1);
  }
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

async function installPackages() {
  if (installed()) return;
  await step('installing packages', [...npm(), 'ci', '--no-audit', '--no-fund']);
}

/**
 * npm writes down what it installed in node_modules/.package-lock.json. Comparing that with the
 * lock file also sees an install that the user made by hand, which a mark of our own would not.
 */
function installed() {
  const recordFile = join(ROOT, 'node_modules', '.package-lock.json');
  if (!existsSync(recordFile)) return false;
  const wanted = readPackages(join(ROOT, 'package-lock.json'));
  const present = readPackages(recordFile);
  return Object.entries(wanted).every(([path, entry]) => {
    // A workspace is linked where it lies: its version changes without anything to install.
    if (!path.includes('node_modules/')) return true;
    // Optional: made for another platform, or failed to build, which is looked at separately.
    if (entry.optional || entry.devOptional) return true;
    const found = present[path];
    return found !== undefined && found.version === entry.version && found.link === entry.link;
  });
}

function readPackages(lockFile) {
  return JSON.parse(readFileSync(lockFile, 'utf8')).packages;
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

/** Runs a command that must succeed, with a line of its own when it takes a while. */
async function step(label, command, { mayFail = false } = {}) {
  const startedAt = performance.now();
  let told = false;
  const timer = setTimeout(() => {
    told = true;
    process.stderr.write(`${label} … `);
  }, QUIET_MS);
  const { code, output } = await run(command);
  clearTimeout(timer);
  if (told) process.stderr.write(`${((performance.now() - startedAt) / 1000).toFixed(1)} s\n`);
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

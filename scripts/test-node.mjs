import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import { endAs } from './jest.mjs';
import { end, orEnd } from './or-end.mjs';
import { ROOT } from './setup.mjs';
import {
  environmentOf,
  nodePackage,
  nodesFolder,
  testNodeArguments,
} from './test-node-arguments.mjs';

/*
 * npm run test:node -- 22               npm test on the newest Node 22
 * npm run test:node -- 20.19 test/unit  the rest goes to jest
 *
 * Node comes from the npm registry, into a cache outside the repository, and so does a copy of this
 * repository as it is now, with packages that are installed and compiled for that Node: those of this
 * clone stay as they are. The first run of a version installs all that; the next copies what changed.
 * One run of a version at a time.
 */

const { version, jest } = orEnd(() => testNodeArguments(process.argv.slice(2)));
const home = join(nodesFolder(process.env), version);
const prefix = installNode();
const copy = join(home, 'copy');
bringUpToDate(copy, join(home, 'copied.json'));

endAs([executable(), join('scripts', 'test.mjs'), ...jest], {
  cwd: copy,
  env: environmentOf(prefix, process.env, delimiter),
});

/** @returns the folder that holds bin/node, and include/node to compile against */
function installNode() {
  const name = nodePackage(process.platform, process.arch);
  const folder = join(home, 'node');
  const installed = join(folder, 'node_modules', name);
  if (!existsSync(join(installed, 'package.json'))) {
    mkdirSync(folder, { recursive: true });
    process.stderr.write(`installing Node ${version}\n`);
    const args = ['install', '--prefix', '.', '--no-save', '--no-audit', '--no-fund'];
    const npm = process.env.npm_execpath;
    const command = npm?.endsWith('.js') ? [process.execPath, npm] : ['npm'];
    // From its own folder: npm would take the clone for the project otherwise.
    const { status } = spawnSync(command[0], [...command.slice(1), ...args, `${name}@${version}`], {
      cwd: folder,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    if (status !== 0) end(`Node ${version} could not be installed as npm's ${name}`, 1);
  }
  return installed;
}

function executable() {
  return join(prefix, 'bin', process.platform === 'win32' ? 'node.exe' : 'node');
}

/**
 * Copies what git would: what it has, and what it does not ignore. What was copied before and is gone
 * is removed; packages and what was built stay. A file that did not change keeps its time, by which
 * the compiler sees what is to be built.
 */
function bringUpToDate(target, recordFile) {
  const listed = spawnSync(
    'git',
    ['ls-files', '-z', '--cached', '--others', '--exclude-standard'],
    {
      cwd: ROOT,
      encoding: 'utf8',
    },
  );
  if (listed.status !== 0) end(`git could not list the files of ${ROOT}: ${listed.stderr}`, 1);
  const files = listed.stdout
    .split('\0')
    .filter((file) => file !== '' && existsSync(join(ROOT, file)) && isFile(join(ROOT, file)));
  const before = existsSync(recordFile) ? JSON.parse(readFileSync(recordFile, 'utf8')) : [];
  const present = new Set(files);
  for (const file of before) {
    if (!present.has(file)) rmSync(join(target, file), { force: true });
  }
  // Before the copy: what one that is cut off has brought is known to the next.
  mkdirSync(target, { recursive: true });
  writeFileSync(recordFile, JSON.stringify(files));
  for (const file of files) {
    const [from, to] = [join(ROOT, file), join(target, file)];
    if (existsSync(to) && readFileSync(to).equals(readFileSync(from))) continue;
    mkdirSync(dirname(to), { recursive: true });
    cpSync(from, to);
  }
}

function isFile(path) {
  return statSync(path).isFile();
}

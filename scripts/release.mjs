import { spawnSync } from 'node:child_process';
import { readFile } from 'node:fs/promises';
import { join, relative, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { PACKAGES } from './build-packages.mjs';
import { packPackages } from './pack-packages.mjs';
import {
  changelogFaults,
  packageFaults,
  tagFaults,
  treeFaults,
  versionFaults,
} from './release-checks.mjs';
import { ROOT, setUp } from './setup.mjs';

/*
 * npm run release                       checks, tests, packs; publishes nothing
 * npm run release -- --skip-tests       for a commit whose tests are known to be green
 * npm run release -- --only-pack        packs what lies here, checked or not: to look at, not to publish
 * npm run release -- --into <folder>    instead of .local/release/<version>
 *
 * Ends with the commands that publish: they are for a person, or a job with the rights to.
 */

const { values: options } = parseArgs({
  options: {
    'skip-tests': { type: 'boolean', default: false },
    'only-pack': { type: 'boolean', default: false },
    into: { type: 'string' },
  },
});

await setUp();
const { version } = await json('package.json');
if (!options['only-pack']) {
  refuse(await faults());
  npmRun('check');
  if (!options['skip-tests']) npmRun('test:all');
  // A test that leaves something behind would be packed.
  refuse(treeFaults(git('status', '--porcelain')));
}
const folder = resolve(options.into ?? join(ROOT, '.local', 'release', version));
tell(version, folder, await packPackages(folder));

/** All of them at once, so that one run says everything. */
async function faults() {
  const lock = await json('package-lock.json');
  const workspaces = Object.keys(lock.packages).filter(
    (path) => path !== '' && !path.includes('node_modules'),
  );
  const manifests = {};
  for (const workspace of workspaces) {
    manifests[workspace] = await json(join(workspace, 'package.json'));
  }
  const others = {
    'package-lock.json': lock.version,
    'protocol/src/version.ts': await found('protocol/src/version.ts', /VERSION = '(.*)'/),
    Dockerfile: await found('Dockerfile', /image\.version="(.*)"/),
  };
  for (const workspace of workspaces) {
    others[`package-lock.json, ${workspace}`] = lock.packages[workspace]?.version;
  }
  return [
    ...treeFaults(git('status', '--porcelain')),
    ...versionFaults(version, manifests, others),
    ...packageFaults(PACKAGES, manifests),
    ...changelogFaults(version, await text('CHANGELOG.md')),
    ...tagFaults(version, git('tag', '--list', `v${version}`) !== ''),
  ];
}

function tell(packed, into, files) {
  const where = relative(process.cwd(), into) || '.';
  const publish = files.map((file) => `npm publish ./${file} --access public --provenance`);
  process.stdout.write(`
Packed ${packed} into ${where}; nothing is published. To check the files: sha256sum --check SHA256SUMS

Next, in this order, since each needs those before it. npm makes a provenance only in a job of GitHub Actions or GitLab
that may write an id-token; elsewhere say --provenance=false.

  git tag v${packed} && git push origin v${packed}
  cd ${where}
  ${publish.join('\n  ')}
`);
}

function refuse(sentences) {
  if (sentences.length === 0) return;
  process.stderr.write(`Not released:\n${sentences.map((each) => `- ${each}\n`).join('')}`);
  process.exit(1);
}

function npmRun(script) {
  const { status } = spawnSync('npm', ['run', '--silent', script], { cwd: ROOT, stdio: 'inherit' });
  if (status !== 0) refuse([`npm run ${script} failed`]);
}

function git(...args) {
  const { status, stdout, stderr, error } = spawnSync('git', args, { cwd: ROOT, encoding: 'utf8' });
  if (status !== 0) refuse([`git ${args[0]} failed: ${error?.message ?? stderr.trim()}`]);
  return stdout.trimEnd();
}

function text(file) {
  return readFile(join(ROOT, file), 'utf8');
}

async function json(file) {
  return JSON.parse(await text(file));
}

async function found(file, pattern) {
  return pattern.exec(await text(file))?.[1];
}

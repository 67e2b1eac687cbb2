import { spawn, spawnSync } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readFile, rm } from 'node:fs/promises';
import { availableParallelism, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/*
 * npm run model    walks through every state of escrow.pml, right and broken, with spin
 *
 * The right protocol must hold in every configuration, and each broken variant must be caught by the
 * property that is meant to catch it: a model that can't fail proves nothing. Exits with 1 when one
 * result is not as expected.
 */

const NAME = 'escrow.pml';
const MODEL = join(dirname(fileURLToPath(import.meta.url)), NAME);

/** Of one search; the largest takes half a gigabyte. */
const MEMORY_MIB_MAX = 2_000;
/** Of one path; the longest takes 600 steps. */
const DEPTH_MAX = 1_000_000;
/** Of one search on a busy machine; the longest takes 20 s on a quiet one. */
const SEARCH_MS_MAX = 240_000;

const SAFETY = 'safety';
const SMALL = ['CRASHES=1', 'LOSSES=1'];

/** `caughtBy`: a part of what spin says about the assertion or property that fails. */
const RUNS = [
  { name: 'one broker', defines: ['BROKERS=1'], property: SAFETY },
  { name: 'two brokers', defines: ['LOSSES=1'], property: SAFETY },
  { name: 'two brokers, retention', defines: ['RETENTION', ...SMALL], property: SAFETY },
  { name: 'one broker', defines: ['BROKERS=1'], property: 'applied_in_the_end' },
  { name: 'one broker', defines: ['BROKERS=1'], property: 'decided_in_the_end' },
  { name: 'two brokers', defines: SMALL, property: 'applied_in_the_end' },
  { name: 'two brokers', defines: SMALL, property: 'decided_in_the_end' },
  {
    name: 'one broker, retention',
    defines: ['BROKERS=1', 'RETENTION', ...SMALL],
    property: 'applied_or_parked',
  },
  {
    name: 'no barrier: the check looks',
    defines: ['LOOKS'],
    property: SAFETY,
    caughtBy: 'what is rolled back at the broker never commits',
  },
  {
    name: 'rollback after an ambiguous COMMIT',
    defines: ['ROLLS_BACK_AMBIGUOUS'],
    property: SAFETY,
    caughtBy: 'what committed is never rolled back',
  },
  {
    name: 'gives up into rollback',
    defines: ['GIVES_UP'],
    property: SAFETY,
    caughtBy: 'what is rolled back at the broker never commits',
  },
  {
    name: 'forwarded before it is published',
    defines: ['BROKERS=1', 'MARKS_FIRST', ...SMALL],
    property: 'applied_in_the_end',
    caughtBy: 'acceptance cycle',
  },
  {
    name: 'no dedupe at the consumer',
    defines: ['NO_DEDUPE'],
    property: SAFETY,
    caughtBy: 'applied at most once',
  },
  {
    name: 'acknowledged before the work',
    defines: ['BROKERS=1', 'ACKNOWLEDGES_FIRST', ...SMALL],
    property: 'applied_in_the_end',
    caughtBy: 'acceptance cycle',
  },
  {
    name: 'barrier row purged too early',
    defines: ['RETENTION', 'PURGES_BARRIER_EARLY', ...SMALL],
    property: SAFETY,
    caughtBy: 'what committed is never rolled back',
  },
  {
    name: 'consumed row purged too early',
    defines: ['RETENTION', 'PURGES_CONSUMED_EARLY', ...SMALL],
    property: SAFETY,
    caughtBy: 'applied at most once',
  },
];

await main();

async function main() {
  const startedAt = performance.now();
  needTools();
  const assertions = await assertionsByText();
  const folder = await mkdtemp(join(tmpdir(), 'escrow-model-'));
  process.stdout.write(
    `${row(['configuration', 'property', 'expected', 'result', 'states', 's'])}\n`,
  );
  try {
    const waiting = RUNS.map((run, number) => ({ run, number }));
    let failures = 0;
    const worker = async () => {
      for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) {
        const result = await search(next.run, join(folder, String(next.number)), assertions);
        if (!result.isAsExpected) failures += 1;
        process.stdout.write(`${row(result.cells)}\n`);
      }
    };
    await Promise.all(Array.from({ length: Math.min(4, availableParallelism()) }, worker));
    const seconds = Math.round((performance.now() - startedAt) / 1000);
    process.stdout.write(
      failures === 0
        ? `\n${RUNS.length} of ${RUNS.length} as expected, in ${seconds} s\n`
        : `\n${failures} of ${RUNS.length} NOT as expected, in ${seconds} s\n`,
    );
    process.exitCode = failures === 0 ? 0 : 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** spin prints an assertion as C code; the comment beside it in the model says it in words. */
async function assertionsByText() {
  const lines = (await readFile(MODEL, 'utf8')).split('\n');
  const found = lines.flatMap((line, index) => {
    const match = /assert\((.*)\);?\s*\/\* (.*) \*\//.exec(line);
    return match === null ? [] : [{ line: index + 1, words: match[2] }];
  });
  return new Map(found.map(({ line, words }) => [line, words]));
}

async function search({ name, defines, property, caughtBy }, folder, assertions) {
  const startedAt = performance.now();
  await mkdir(folder);
  // spin looks for the path of a violation beside the model.
  await copyFile(MODEL, join(folder, NAME));
  const flags = defines.map((define) => `-D${define}`);
  const isSafety = property === SAFETY;
  await run('spin', ['-a', ...flags, NAME], folder);
  const kind = isSafety ? ['-DSAFETY', '-DNOCLAIM'] : ['-DNFAIR=3'];
  const limits = ['-DCOLLAPSE', `-DMEMLIM=${MEMORY_MIB_MAX}`];
  await run('gcc', ['-O2', '-w', ...kind, ...limits, '-o', 'pan', 'pan.c'], folder);
  const claim = isSafety ? [] : ['-a', '-f', '-N', property];
  const said = await run('./pan', [`-m${DEPTH_MAX}`, ...claim], folder);
  const result = await verdictOf(said, { folder, flags, assertions });
  const expected = caughtBy ?? 'holds';
  const states = Number(/(\d+) states, stored/.exec(said)?.[1] ?? 0);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1);
  const isAsExpected = result.includes(expected);
  const shown = isAsExpected ? (caughtBy === undefined ? 'holds' : 'caught') : `WRONG: ${result}`;
  const cells = [name, property, expected, shown, states.toLocaleString('en'), seconds];
  return { isAsExpected, cells };
}

/** `holds`, or what was violated, in words where the model has them. */
async function verdictOf(said, { folder, flags, assertions }) {
  if (/acceptance cycle/.test(said.split('Full statespace')[0])) return 'acceptance cycle';
  const isComplete = /errors: 0/.test(said) && !/Search not completed/.test(said);
  if (isComplete) return 'holds';
  if (!/assertion violated/.test(said)) return said.trim().split('\n').slice(0, 3).join(' ');
  // The last step of the replayed path is the one that failed.
  const replay = await run('spin', ['-t', '-p', ...flags, NAME], folder);
  const line = Number(/escrow\.pml:(\d+), Error: assertion violated/.exec(replay)?.[1]);
  return assertions.get(line) ?? `the assertion in line ${line}`;
}

function run(command, args, folder) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { cwd: folder, timeout: SEARCH_MS_MAX });
    let said = '';
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding('utf8').on('data', (text) => {
        said += text;
      });
    }
    child.once('error', reject);
    child.once('close', (_code, signal) => {
      // spin -t and pan answer a violation with 0 or 1; what is cut off has no result.
      if (signal === null) resolve(said);
      else reject(new Error(`${command} ${args.join(' ')} was cut off (${signal}): ${said}`));
    });
  });
}

function needTools() {
  const missing = ['spin', 'gcc'].filter((tool) => spawnSync(tool, ['--version']).error);
  if (missing.length === 0) return;
  const packages = [...missing, 'libc6-dev'];
  const isRoot = process.getuid?.() === 0;
  if (isRoot && spawnSync('apt-get', ['--version']).error === undefined) {
    process.stderr.write(`installing ${missing.join(' and ')} with apt-get\n`);
    const script = `apt-get update -q && apt-get install -q -y --no-install-recommends ${packages.join(' ')}`;
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const { status, stdout, stderr } = spawnSync('sh', ['-c', script], { env, encoding: 'utf8' });
    if (status === 0) return;
    process.stderr.write(`${stdout}${stderr}`);
  }
  process.stderr.write(
    `install ${packages.join(', ')} (as root: apt-get install ${packages.join(' ')})\n`,
  );
  process.exit(1);
}

function row(cells) {
  const widths = [36, 20, 50, 8, 12, 6];
  return cells
    .map((cell, index) => String(cell).padEnd(widths[index] ?? 0))
    .join(' ')
    .trimEnd();
}

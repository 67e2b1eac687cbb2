import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { copyFile, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { spawnOwned } from '../measure/owned-child.js';

/*
 * RocketMQ's jars and our load for it, in a folder that git ignores: made once, and again when a
 * source changes. Nothing is installed: Maven and a JDK are there, or the peer is left out.
 */

const SOURCES = fileURLToPath(new URL('../../peers/rocketmq/', import.meta.url));
const CACHE = fileURLToPath(new URL('../../.cache/rocketmq/', import.meta.url));

/** Named in full, since the default version of a plugin is whatever this Maven came with. */
const COPY_JARS = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies';

/** Read by the logging of RocketMQ's client from the class path. */
const LOGGING = 'rmq.logback.xml';

/** The oldest release with long-term support that has records, which the sources use. */
const JAVA_RELEASE = '17';

/** 83 MB of jars took 20 s from a mirror nearby. */
const STEP_MS_MAX = 600_000;

/** Enough for the first complaint of Maven or the compiler, which names the cause. */
const OUTPUT_CHARS = 4_000;

/**
 * Makes the jars and classes unless they are there.
 *
 * @returns the class path with RocketMQ, its client and our classes
 * @throws Error with one line that says what is missing or what failed
 */
export async function buildRocketmq(): Promise<string> {
  await requireJava();
  const folder = join(CACHE, sourcesHash());
  if (!existsSync(folder)) {
    // What older sources were built into is of no use any more.
    await rm(CACHE, { recursive: true, force: true });
    await mkdir(CACHE, { recursive: true });
    // Under another name until it is complete: a build that was interrupted is not taken for one.
    const unfinished = await mkdtemp(join(CACHE, 'unfinished-'));
    await fill(unfinished);
    await rename(unfinished, folder);
  }
  return classPath(folder);
}

const JDK = `a JDK from ${JAVA_RELEASE} on (on Debian: apt-get install default-jdk-headless)`;

/** What was built before says nothing about what is there to run it. */
async function requireJava(): Promise<void> {
  // "openjdk 17.0.9 2023-10-17"; a Java before 9 does not know the option.
  const printed = await run(['java', '--version'], JDK);
  const release = /(\d+)/.exec(printed)?.[1] ?? 'unknown';
  if (Number(release) >= Number(JAVA_RELEASE)) return;
  throw new Error(`RocketMQ needs ${JDK}: java is of release ${release}`);
}

const classPath = (folder: string) => `${join(folder, 'classes')}:${join(folder, 'lib', '*')}`;

const sources = () => readdirSync(SOURCES).sort();

function sourcesHash(): string {
  const hash = createHash('sha256');
  for (const name of sources()) hash.update(name).update(readFileSync(join(SOURCES, name)));
  return hash.digest('hex').slice(0, 16);
}

async function fill(folder: string): Promise<void> {
  const pom = join(SOURCES, 'pom.xml');
  const jars = join(folder, 'lib');
  await run(
    [
      'mvn',
      ...['-q', '-B', '-Dstyle.color=never', '-f', pom, COPY_JARS],
      ...['-DincludeScope=runtime', `-DoutputDirectory=${jars}`],
    ],
    'Maven (on Debian: apt-get install maven), with access to Maven Central',
  );
  const classes = join(folder, 'classes');
  const java = sources().filter((name) => name.endsWith('.java'));
  await run(
    [
      'javac',
      ...['--release', JAVA_RELEASE, '-nowarn', '-cp', classPath(folder), '-d', classes],
      ...java.map((name) => join(SOURCES, name)),
    ],
    JDK,
  );
  await copyFile(join(SOURCES, LOGGING), join(classes, LOGGING));
}

/**
 * @param needs what the command comes with, for the error
 * @returns the beginning of what it printed
 */
async function run(command: [string, ...string[]], needs: string): Promise<string> {
  const child = spawnOwned(command, { stdio: ['ignore', 'pipe', 'pipe'], timeout: STEP_MS_MAX });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.setEncoding('utf8').on('data', (text: string) => {
      output = (output + text).slice(0, OUTPUT_CHARS);
    });
  }
  const failed = (reason: string, cause?: unknown) =>
    new Error(`RocketMQ needs ${needs}: ${command[0]} ${reason}`, { cause });
  try {
    const [code, signal] = await once(child, 'close');
    if (code !== 0)
      throw failed(`ended with ${signal ?? `exit code ${code}`}: ${firstError(output)}`);
    return output;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') throw failed('is not there', error);
    throw error;
  }
}

/** Of what Maven or the compiler printed; the rest is advice or follows from it. */
function firstError(output: string): string {
  const lines = output.split('\n').filter((line) => line.trim() !== '');
  return lines.find((line) => /error/i.test(line)) ?? lines[0] ?? 'it printed nothing';
}

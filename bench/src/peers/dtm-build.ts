import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

/*
 * DTM's server and our load on it, compiled from the Go sources in peers/dtm into a folder that git
 * ignores. Go fetches what they need by the checksums in go.sum, and keeps a cache of its own: a
 * second build takes a second.
 */

const SOURCES = fileURLToPath(new URL('../../peers/dtm/', import.meta.url));
const CACHE = fileURLToPath(new URL('../../.cache/dtm/', import.meta.url));

const DTM_MODULE = 'github.com/dtm-labs/dtm';

/** From an empty cache: 25 MB of modules, and two minutes of compiling on two busy cores. */
const STEP_MS_MAX = 600_000;

/** Enough for a compiler's first complaint, short enough for a line of the report. */
const COMPLAINT_CHARS = 300;

export interface DtmBuild {
  /** Paths of the executables. */
  server: string;
  load: string;
  /** DTM's own SQL script for MySQL: it makes the database `dtm`, dropping its tables first. */
  schema: string;
}

let built: Promise<DtmBuild> | undefined;

/**
 * Compiles what is not compiled yet.
 *
 * @throws Error with a sentence that says what is missing or what failed
 */
export function buildDtm(): Promise<DtmBuild> {
  built ??= build();
  return built;
}

async function build(): Promise<DtmBuild> {
  await mkdir(CACHE, { recursive: true });
  // Without version control: git refuses to answer for a checkout of another user.
  await go('build', '-buildvcs=false', '-o', CACHE, './server', './load');
  const module = await go('list', '-m', '-f', '{{.Dir}}', DTM_MODULE);
  return {
    server: join(CACHE, 'server'),
    load: join(CACHE, 'load'),
    schema: await readFile(join(module, 'sqls', 'dtmsvr.storage.mysql.sql'), 'utf8'),
  };
}

/** @returns what it printed on standard output, trimmed */
async function go(...args: string[]): Promise<string> {
  try {
    const { stdout } = await promisify(execFile)('go', args, {
      cwd: SOURCES,
      // An older Go says that it is too old, instead of fetching a newer one.
      env: { ...process.env, GOTOOLCHAIN: 'local', GOWORK: 'off' },
      timeout: STEP_MS_MAX,
    });
    return stdout.trim();
  } catch (error) {
    const { code, stderr } = error as { code?: unknown; stderr?: string };
    const reason =
      code === 'ENOENT'
        ? 'go is not there'
        : `go ${args[0]} failed: ${complaint(stderr || String(error))}`;
    throw new Error(`DTM needs Go from 1.22 on and access to its module proxy: ${reason}`, {
      cause: error,
    });
  }
}

/** Without the names of what was being fetched when it failed. */
function complaint(output: string): string {
  const lines = output.split('\n').filter((line) => line !== '' && !/^go: downloading/.test(line));
  return lines.join('; ').slice(0, COMPLAINT_CHARS);
}

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { until } from './until.js';

/*
 * The snippets of a page in docs/ as programs: what stands below one heading or below several is one
 * module, run from inside the repository, so that Node finds the packages by their names.
 */

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** @returns the first snippet below a heading, such as `## 3. The barrier table` */
export async function snippetsOf(name: string): Promise<(heading: string) => string> {
  const page = await readFile(join(ROOT, 'docs', name), 'utf8');
  return (heading) => {
    const below = page.split(`\n${heading}\n`)[1];
    const found = below === undefined ? undefined : /```js\n([\s\S]*?)```/.exec(below)?.[1];
    if (found === undefined) throw new Error(`docs/${name} has no snippet below "${heading}"`);
    return found;
  };
}

const UNTIL_STDIN_ENDS = `
console.log('ready');
process.stdin.resume().on('end', () => process.exit(0));
`;

export interface PageProgram {
  child: ChildProcess;
  /** What it has printed so far, line by line. */
  lines(): string[];
  /** Its end, whatever it does. */
  kill(): void;
}

export interface PageFolder {
  path: string;
  /** Starts a program, and waits until it is through with its source; it lives until stdin ends. */
  run(source: string, env: Record<string, string>, limitMs?: number): Promise<PageProgram>;
  remove(): Promise<void>;
}

/** A folder of ES modules inside the repository, where git does not look. */
export async function pageFolder(name: string): Promise<PageFolder> {
  await mkdir(join(ROOT, '.local'), { recursive: true });
  const path = await mkdtemp(join(ROOT, '.local', `${name}-`));
  await writeFile(join(path, 'package.json'), '{ "type": "module" }');
  return {
    path,
    run: (source, env, limitMs) => runIn(path, { source, env, limitMs }),
    remove: () => rm(path, { recursive: true }),
  };
}

async function runIn(
  cwd: string,
  program: { source: string; env: Record<string, string>; limitMs: number | undefined },
): Promise<PageProgram> {
  await writeFile(join(cwd, 'program.js'), program.source + UNTIL_STDIN_ENDS);
  const child = spawn(process.execPath, ['program.js'], {
    cwd,
    env: { PATH: process.env.PATH, ...program.env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let printed = '';
  let failed = '';
  child.stdout.on('data', (chunk) => {
    printed += chunk;
  });
  child.stderr.on('data', (chunk) => {
    failed += chunk;
  });
  try {
    await until(
      'the program is ready',
      () => {
        if (child.exitCode !== null) throw new Error(`it ended: ${failed}`);
        return /^ready$/m.test(printed);
      },
      program.limitMs,
    );
  } catch (error) {
    child.kill('SIGKILL');
    throw error;
  }
  return {
    child,
    lines: () => printed.trim().split('\n'),
    kill: () => child.kill('SIGKILL'),
  };
}

import { existsSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { Lifeline } from './lifeline.js';

/*
 * A folder that takes minutes to fill is filled beside its place and then renamed, which is a single
 * step: what has the name is whole. Processes that want it at once wait for each other at a lock that
 * the kernel lets go of with its holder. Work that its owner's death cut off has another name, and is
 * begun anew by the next.
 */

/** Longer than any installation is let run. */
const LOCK_WAIT_S = 3_600;

/** Half an hour is ten times what it takes; a mirror may be slow. */
const BUILD_DEADLINE_MS = 30 * 60_000;

/** None of these is used by the programs behind the script. */
const LOCK_TIMED_OUT = 75;

const ONCE_SCRIPT = `
folder=$1
shift
[ -d "$folder" ] && exit 0
rm -rf --one-file-system "$folder.partial" && mkdir "$folder.partial" || exit 1
"$@" "$folder.partial" || exit
mv "$folder.partial" "$folder"
`;

export interface Build {
  /** Its arguments are completed by the folder to fill, which is there and empty. */
  command: readonly [string, ...string[]];
  env: Readonly<Record<string, string>>;
}

/** What the command that fills a folder ended with, when that was not success. */
export class BuildFailure extends Error {
  readonly exitCode: number | null;
  /** The end of what it printed. */
  readonly printed: string;

  constructor(exitCode: number | null, printed: string) {
    super(`exit code ${exitCode}; it printed last:\n${printed}`);
    this.exitCode = exitCode;
    this.printed = printed;
  }
}

/**
 * Makes sure that `folder` is there and whole. Needs `flock`.
 * @throws BuildFailure when it could not be filled; then it is not there
 */
export async function installOnce(folder: string, { command, env }: Build): Promise<void> {
  if (existsSync(folder)) return;
  mkdirSync(dirname(folder), { recursive: true });
  const lifeline = await Lifeline.open('install');
  try {
    const lock = ['-w', String(LOCK_WAIT_S), '-E', String(LOCK_TIMED_OUT), `${folder}.lock`];
    const build = lifeline.start({
      command: 'flock',
      args: [...lock, 'sh', '-c', ONCE_SCRIPT, 'once', folder, ...command],
      env,
      log: 'install.log',
    });
    const code = await build.ended(LOCK_WAIT_S * 1_000 + BUILD_DEADLINE_MS);
    if (code === LOCK_TIMED_OUT) {
      throw new BuildFailure(code, `another process has been filling ${folder} for an hour`);
    }
    if (code !== 0) throw new BuildFailure(code, build.logTail());
  } finally {
    await lifeline.close();
  }
}

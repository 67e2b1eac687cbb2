import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from '@jest/globals';
import { type BuildFailure, installOnce } from '../../local-servers/src/install-once.js';
import { describeUnless } from '../support/describe-unless.js';
import { until } from '../support/until.js';

const noLock = existsSync('/usr/bin/flock') ? undefined : 'flock (util-linux) is not installed';

describeUnless(noLock)('a folder that is filled once', () => {
  let parent: string;
  beforeEach(() => {
    parent = mkdtempSync(join(tmpdir(), 'escrow-once-'));
  });
  afterEach(() => rmSync(parent, { recursive: true }));

  const folder = () => join(parent, 'set-1');
  const env = { PATH: String(process.env.PATH) };
  /** Notes that it began, waits for the file `go`, or for the end of a test, and fills the folder. */
  const build = () => {
    const script = `echo begun >>"$0/begun"
      while [ ! -e "$0/go" ]; do [ -d "$0" ] || exit 8; sleep 0.05; done
      [ ! -e "$1/first" ] || exit 9
      touch "$1/first" "$1/second"`;
    return { command: ['sh', '-c', script, parent] as const, env };
  };
  const begun = () =>
    existsSync(join(parent, 'begun'))
      ? readFileSync(join(parent, 'begun'), 'utf8').split('\n').length - 1
      : 0;
  const letGo = () => writeFileSync(join(parent, 'go'), '');

  test('is filled by one of those that want it at once, while the others wait', async () => {
    const wanting = [1, 2, 3].map(() => installOnce(folder(), build()));
    await until('one has begun', () => begun() > 0);
    expect(existsSync(folder())).toBe(false);
    letGo();
    await Promise.all(wanting);
    expect(begun()).toBe(1);
    expect(readdirSync(folder())).toEqual(['first', 'second']);
  });

  test('is not there after a failure, which tells what was printed, and is filled by the next', async () => {
    const failing = { command: ['sh', '-c', 'touch "$0/first"; echo oh no; exit 7'] as const, env };
    await expect(installOnce(folder(), failing)).rejects.toMatchObject({
      exitCode: 7,
      printed: 'oh no',
    } satisfies Partial<BuildFailure>);
    expect(existsSync(folder())).toBe(false);
    letGo();
    await installOnce(folder(), build());
    expect(readdirSync(folder())).toEqual(['first', 'second']);
  });

  test('is begun anew when SIGKILL ended the process that was filling it', async () => {
    const program = `import { installOnce } from ${JSON.stringify(
      String(new URL('../../local-servers/dist/install-once.js', import.meta.url)),
    )};
      await installOnce(...${JSON.stringify([
        folder(),
        {
          command: ['sh', '-c', 'touch "$1/first"; echo begun >>"$0/begun"; sleep 60', parent],
          env,
        },
      ])});`;
    const owner = spawn(process.execPath, ['--input-type=module', '--eval', program], {
      stdio: ['ignore', 'inherit', 'inherit'],
    });
    await until('it has begun', () => begun() === 1);
    owner.kill('SIGKILL');
    await once(owner, 'exit');
    expect(existsSync(folder())).toBe(false);
    letGo();
    await installOnce(folder(), build());
    expect(begun()).toBe(2);
    expect(readdirSync(folder())).toEqual(['first', 'second']);
  });
});

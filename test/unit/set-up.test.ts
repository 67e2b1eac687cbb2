import { readFileSync } from 'node:fs';
import { describe, expect, test } from '@jest/globals';

type Packages = Record<string, { version?: string; link?: boolean; dev?: boolean }>;

/** A script is no module of any project of the compiler's. */
const script = (name: string): Promise<unknown> =>
  import(String(new URL(`../../scripts/${name}.mjs`, import.meta.url)));
const { packagesToInstall } = (await script('packages-to-install')) as {
  packagesToInstall(
    wanted: Packages,
    present: Packages | undefined,
    need: { forTests: boolean },
  ): { how: 'nothing' | 'anew' | 'add'; forTests: boolean };
};
const { createProgress } = (await script('progress')) as {
  createProgress(
    stream: { write(text: string): unknown; isTTY?: boolean; columns?: number },
    now: () => number,
  ): { begin(label: string): () => void; say(line: string): void; tick(): void };
};

describe('the packages of a command', () => {
  const RUN = {
    'node_modules/zod': { version: '4.0.0' },
    'node_modules/@escrowmq/broker': { link: true },
  };
  const JEST = { 'node_modules/jest': { version: '30.0.0', dev: true } };
  const LOCK: Packages = {
    '': { version: '0.2.0' },
    broker: { version: '0.2.0' },
    ...RUN,
    ...JEST,
    'node_modules/addon': { version: '1.0.0', optional: true } as Packages[string],
  };
  const forTests = { forTests: true };
  const forRun = { forTests: false };

  test('are installed anew where npm wrote no record, as after an interrupted install', () => {
    expect(packagesToInstall(LOCK, undefined, forRun)).toEqual({ how: 'anew', forTests: false });
    expect(packagesToInstall(LOCK, undefined, forTests)).toEqual({ how: 'anew', forTests: true });
  });

  test('are left alone where all that it needs is there', () => {
    expect(packagesToInstall(LOCK, RUN, forRun).how).toBe('nothing');
    expect(packagesToInstall(LOCK, { ...RUN, ...JEST }, forTests).how).toBe('nothing');
  });

  test('of the tests are added to those of the demo', () => {
    expect(packagesToInstall(LOCK, RUN, forTests)).toEqual({ how: 'add', forTests: true });
  });

  test('are installed anew where one that is there is of another version, or not wanted any more', () => {
    const older = { ...RUN, 'node_modules/zod': { version: '3.0.0' } };
    expect(packagesToInstall(LOCK, older, forTests).how).toBe('anew');
    const gone = { ...RUN, 'node_modules/gone': { version: '1.0.0' } };
    expect(packagesToInstall(LOCK, gone, forTests).how).toBe('anew');
  });

  test('of the tests stay where they are there already, whoever finds the others stale', () => {
    const stale = { ...JEST, 'node_modules/zod': { version: '3.0.0' } };
    expect(packagesToInstall(LOCK, stale, forRun)).toEqual({ how: 'anew', forTests: true });
    const jestAlone = packagesToInstall(LOCK, { ...RUN, ...JEST, 'node_modules/x': {} }, forRun);
    expect(jestAlone.how).toBe('nothing');
  });
});

test('what runs without tests needs a fifth of the packages', () => {
  const lock = new URL('../../package-lock.json', import.meta.url);
  const { packages } = JSON.parse(readFileSync(lock, 'utf8')) as { packages: Packages };
  const paths = Object.keys(packages).filter((path) => path.includes('node_modules/'));
  const run = paths.filter((path) => !packages[path]?.dev && !packages[path]?.link);
  // A peer that is optional counts as needed, unless the same workspace has it among its devDependencies.
  expect(run.filter((path) => /prisma|drizzle-orm|typeorm|testcontainers|jest/.test(path))).toEqual(
    [],
  );
  expect(run.length).toBeLessThan(paths.length / 4);
});

describe('progress', () => {
  function told(isTTY: boolean, columns = 80) {
    const clock = { ms: 0 };
    const written: string[] = [];
    const stream = { isTTY, columns, write: (text: string) => written.push(text) };
    const progress = createProgress(stream, () => clock.ms);
    const passTo = (ms: number) => {
      clock.ms = ms;
      progress.tick();
    };
    return { progress, passTo, written: () => written.splice(0) };
  }

  test('moves in a terminal, names all that runs, and leaves a line for each that took a while', () => {
    const { progress, passTo, written } = told(true);
    const endFirst = progress.begin('compiling');
    passTo(1_000);
    expect(written()).toEqual([]);
    passTo(3_000);
    const endSecond = progress.begin('building');
    passTo(6_000);
    expect(written()).toEqual([
      '\rcompiling … 3 s\x1b[K',
      '\rcompiling … 6 s, building … 3 s\x1b[K',
    ]);
    endFirst();
    endSecond();
    expect(written()).toEqual(['\rcompiling: 6.0 s\x1b[K\n', '\rbuilding: 3.0 s\x1b[K\n']);
  });

  test('never wraps in a narrow terminal', () => {
    const { progress, passTo, written } = told(true, 10);
    const end = progress.begin('compiling something');
    passTo(3_000);
    expect(written()).toEqual(['\rcompiling\x1b[K']);
    end();
  });

  test('is a line now and then elsewhere, and none for a step that is done soon', () => {
    const { progress, passTo, written } = told(false);
    progress.begin('quick')();
    const end = progress.begin('installing');
    for (const seconds of [1, 2, 3, 11, 12, 13]) passTo(seconds * 1_000);
    end();
    expect(written()).toEqual(['installing …\n', 'installing … 12 s\n', 'installing: 13.0 s\n']);
  });
});

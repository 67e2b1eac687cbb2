import { existsSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ensurePackages } from '@escrowmq/local-servers';

/** Where Debian's package libfaketime puts its library, by kind of machine. */
const LIBRARIES = ['x86_64-linux-gnu', 'aarch64-linux-gnu'].map(
  (machine) => `/usr/lib/${machine}/faketime/libfaketimeMT.so.1`,
);
const library = () => LIBRARIES.find(existsSync);

/**
 * Installs the library where that is permitted.
 * @returns why there is no other time here and what to do; undefined when there is
 */
export async function fakeTimeProblem(): Promise<string | undefined> {
  try {
    const isInstalled = () => library() !== undefined;
    await ensurePackages([{ name: 'libfaketime', isInstalled }]);
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** The clock on the wall of a process that is started with it. Its timers go as ever. */
export interface FakeTime {
  environment: Record<string, string>;
  /** @param offset such as `+3600` or `-7200`, in seconds from the true time */
  set(offset: string): void;
  remove(): void;
}

export function fakeTime(offset: string): FakeTime {
  const preload = library();
  if (preload === undefined) throw new Error('libfaketime is not installed');
  const folder = mkdtempSync(join(tmpdir(), 'escrow-time-'));
  const file = join(folder, 'offset');
  const set = (to: string) => {
    // By a rename: newer libfaketime ends the process that finds the file empty.
    writeFileSync(`${file}.new`, to);
    renameSync(`${file}.new`, file);
  };
  set(offset);
  return {
    environment: {
      LD_PRELOAD: preload,
      FAKETIME_TIMESTAMP_FILE: file,
      // Read anew at every look at the clock.
      FAKETIME_NO_CACHE: '1',
      DONT_FAKE_MONOTONIC: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    },
    set,
    remove: () => rmSync(folder, { recursive: true }),
  };
}

import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Where Debian's package faketime puts its library, by kind of machine. */
const LIBRARIES = ['x86_64-linux-gnu', 'aarch64-linux-gnu'].map(
  (machine) => `/usr/lib/${machine}/faketime/libfaketimeMT.so.1`,
);
const library = LIBRARIES.find(existsSync);

/** Without the library, tests that need another time are shown as skipped. */
export const mayFakeTime = library !== undefined;

/** The clock on the wall of a process that is started with it. Its timers go as ever. */
export interface FakeTime {
  environment: Record<string, string>;
  /** @param offset such as `+3600` or `-7200`, in seconds from the true time */
  set(offset: string): void;
  remove(): void;
}

export function fakeTime(offset: string): FakeTime {
  if (library === undefined) throw new Error('the package faketime is not installed');
  const folder = mkdtempSync(join(tmpdir(), 'escrow-time-'));
  const file = join(folder, 'offset');
  const set = (to: string) => writeFileSync(file, to);
  set(offset);
  return {
    environment: {
      LD_PRELOAD: library,
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

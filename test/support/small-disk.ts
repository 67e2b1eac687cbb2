import { execFileSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const CHUNK = Buffer.alloc(64 * 1024, 0x78);

/** A disk in memory that can be filled to its last byte. */
export interface SmallDisk {
  folder: string;
  fill(): void;
  /** Takes back what `fill` wrote. */
  free(): void;
  remove(): void;
}

/** @throws Error where mounting is not permitted: it takes root, and a container that may */
export function mountSmallDisk(megabytes: number): SmallDisk {
  const folder = mkdtempSync(join(tmpdir(), 'escrow-disk-'));
  const filler = join(folder, 'filler');
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'none', folder], {
      stdio: 'ignore',
    });
  } catch (error) {
    rmSync(folder, { recursive: true });
    throw error;
  }
  return {
    folder,
    fill() {
      const file = openSync(filler, 'a');
      try {
        // Smaller and smaller pieces, until not a byte is left.
        for (let bytes = CHUNK.length; bytes > 0; ) {
          try {
            if (writeSync(file, CHUNK, 0, bytes) < bytes) bytes = Math.floor(bytes / 2);
          } catch {
            bytes = Math.floor(bytes / 2);
          }
        }
      } finally {
        closeSync(file);
      }
    },
    free: () => rmSync(filler),
    remove() {
      execFileSync('umount', ['--lazy', folder], { stdio: 'ignore' });
      rmSync(folder, { recursive: true });
    },
  };
}

/** @returns why this process may not mount and what to do; undefined when it may */
export function smallDiskProblem(): string | undefined {
  try {
    mountSmallDisk(1).remove();
    return undefined;
  } catch {
    return 'this process may not mount a tmpfs: run it as root, in a container with CAP_SYS_ADMIN';
  }
}

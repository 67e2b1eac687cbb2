import { readFileSync } from 'node:fs';

/**
 * The most memory that a process ever had resident, in MiB, by Linux's /proc.
 *
 * @returns undefined where there is no /proc, and so no figure
 */
export function peakMemoryMiB(pid: number): number | undefined {
  if (process.platform !== 'linux') return undefined;
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const kib = /^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1];
  return kib === undefined ? undefined : Number(kib) / 1024;
}

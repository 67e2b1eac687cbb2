import { readdirSync, readFileSync } from 'node:fs';

/*
 * CPU time from Linux's /proc. Rates on a machine that does other things as well tell little; how
 * much CPU one operation costs each process moves far less, and the rest of the machine's busy time
 * tells how much to trust the rates.
 */

/** /proc counts in USER_HZ, which is 100 for every program on every Linux. */
const MICROS_PER_TICK = 10_000;

/** Readings of one moment, in microseconds of CPU time since some start. */
export interface CpuReading {
  /** Monotonic milliseconds. */
  atMs: number;
  /** Of all processes and the kernel, on all cores. */
  busyMicros: number;
  /** By name as asked for, each with all of its descendants. */
  byName: Record<string, number>;
  /** Of this process alone. */
  ownMicros: number;
  /** Of this process's children that have ended and been waited for. */
  endedChildrenMicros: number;
}

interface ProcessTimes {
  parent: number;
  micros: number;
  /** Of its descendants that it has waited for. */
  endedChildrenMicros: number;
}

/** @returns undefined where there is no /proc, and so no figures */
export function readCpu(processes: Record<string, number>): CpuReading | undefined {
  if (process.platform !== 'linux') return undefined;
  const times = readAllProcesses();
  const own = times.get(process.pid);
  const byName = Object.entries(processes).map(([name, pid]) => [name, treeMicros(times, pid)]);
  return {
    atMs: performance.now(),
    busyMicros: readBusyMicros(),
    byName: Object.fromEntries(byName),
    ownMicros: own?.micros ?? 0,
    endedChildrenMicros: own?.endedChildrenMicros ?? 0,
  };
}

function readAllProcesses(): Map<number, ProcessTimes> {
  const times = new Map<number, ProcessTimes>();
  for (const entry of readdirSync('/proc')) {
    if (!/^[0-9]+$/.test(entry)) continue;
    const found = readProcess(entry);
    if (found !== undefined) times.set(Number(entry), found);
  }
  return times;
}

function readProcess(pid: string): ProcessTimes | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    // It ended since its folder was listed.
    return undefined;
  }
  // The name may hold spaces and brackets. After it: state, parent, …; the times are numbers 14 to
  // 17 of the whole line.
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const field = (number: number) => Number(fields[number - 3]);
  return {
    parent: field(4),
    micros: (field(14) + field(15)) * MICROS_PER_TICK,
    endedChildrenMicros: (field(16) + field(17)) * MICROS_PER_TICK,
  };
}

/** A process that is gone counts nothing. */
function treeMicros(times: Map<number, ProcessTimes>, root: number): number {
  const children = new Map<number, number[]>();
  for (const [pid, { parent }] of times) {
    children.set(parent, [...(children.get(parent) ?? []), pid]);
  }
  const sum = (pid: number): number => {
    const found = times.get(pid);
    if (found === undefined) return 0;
    const below = (children.get(pid) ?? []).reduce((total, child) => total + sum(child), 0);
    return found.micros + found.endedChildrenMicros + below;
  };
  return sum(root);
}

function readBusyMicros(): number {
  const [first = ''] = readFileSync('/proc/stat', 'utf8').split('\n', 1);
  const [user = 0, nice = 0, system = 0, , , irq = 0, softirq = 0] = first
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number);
  return (user + nice + system + irq + softirq) * MICROS_PER_TICK;
}

export interface CpuUse {
  /** Microseconds of CPU time by name, `load` among them. */
  micros: Record<string, number>;
  /** What everybody else used, in percent of one core. */
  foreignPercent: number;
}

/**
 * What was used between two readings. The load ends by itself and may be gone at the second one: its
 * time is then that of this process's ended children, so the two are taken together.
 */
export function cpuUsed(from: CpuReading, to: CpuReading): CpuUse {
  const ended = to.endedChildrenMicros - from.endedChildrenMicros;
  const micros = Object.fromEntries(
    Object.entries(to.byName).map(([name, value]) => {
      const used = value - (from.byName[name] ?? 0) + (name === LOAD ? ended : 0);
      return [name, Math.max(0, used)];
    }),
  );
  const ours = Object.values(micros).reduce((sum, value) => sum + value, 0);
  const foreign = to.busyMicros - from.busyMicros - ours - (to.ownMicros - from.ownMicros);
  const wallMicros = (to.atMs - from.atMs) * 1000;
  return { micros, foreignPercent: Math.max(0, (foreign / wallMicros) * 100) };
}

/** The name under which the load's own process is read. */
export const LOAD = 'load';

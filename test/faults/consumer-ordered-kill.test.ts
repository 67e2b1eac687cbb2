import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, expect, test } from '@jest/globals';
import {
  deleteOrdered,
  keyedMessages,
  keysNamed,
  numbersTo,
  openOrderedBench,
  publishKeyed,
} from '../support/ordered-bench.js';
import { rabbitmqUrl } from '../support/servers.js';
import { until } from '../support/until.js';

const SCRIPT = fileURLToPath(new URL('../support/ordered-consumer-child.mjs', import.meta.url));
const KILLS = 6;
const KEYS = keysNamed(20);
/** Of one key; more of a partition than an instance may hold. */
const COUNT = 100;
/** Between two kills: all partitions are at it again. */
const CALLS_BETWEEN_KILLS = 150;

interface Told {
  /** Nanoseconds of the machine's monotonic clock. */
  at: bigint;
  instance: number;
  what: 'begin' | 'end' | 'killed';
  key: string;
  sequence: number;
}

const told: Told[] = [];
const running = new Set<ChildProcess>();
afterEach(() => {
  for (const child of running) child.kill('SIGKILL');
});

async function startInstance(instance: number, options: object): Promise<ChildProcess> {
  const child = spawn(process.execPath, [SCRIPT, rabbitmqUrl(), JSON.stringify(options)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  running.add(child);
  child.once('exit', () => running.delete(child));
  await new Promise<void>((resolve, reject) => {
    child.once('exit', (code) => reject(new Error(`the instance ended with ${code}`)));
    createInterface({ input: child.stdout! }).on('line', (line) => {
      const [what, at, key, sequence] = line.split(' ');
      if (what === 'consuming') resolve();
      // A line that the kill cut is a call that did not begin.
      else if ((what === 'begin' || what === 'end') && sequence !== undefined) {
        told.push({ at: BigInt(at!), instance, what, key: key!, sequence: Number(sequence) });
      }
    });
  });
  return child;
}

async function kill(instance: number, child: ChildProcess): Promise<void> {
  const exited = once(child, 'exit');
  child.kill('SIGKILL');
  await exited;
  told.push({ at: process.hrtime.bigint(), instance, what: 'killed', key: '', sequence: 0 });
}

/** Replays what was told, in the order in which it happened. */
function judge() {
  const calls = new Map(KEYS.map((key) => [key, [] as number[]]));
  const ended = new Map(KEYS.map((key) => [key, new Set<number>()]));
  const handling = new Map<string, Told>();
  const overlaps: string[] = [];
  for (const event of told.toSorted((one, other) => Number(one.at - other.at))) {
    const { what, key, instance, sequence } = event;
    if (what === 'killed') {
      for (const [busy, by] of handling) if (by.instance === instance) handling.delete(busy);
      continue;
    }
    if (what === 'end') {
      handling.delete(key);
      ended.get(key)!.add(sequence);
      continue;
    }
    const other = handling.get(key);
    if (other !== undefined) overlaps.push(`${key}: ${sequence} while ${other.sequence} ran`);
    handling.set(key, event);
    calls.get(key)!.push(sequence);
  }
  return { calls, ended, overlaps };
}

const allEnded = () =>
  new Set(
    told.filter(({ what }) => what === 'end').map(({ key, sequence }) => `${key} ${sequence}`),
  ).size;

test('whichever instance is killed, the messages of a key are handled in order (F60)', async () => {
  const { bench, options } = await openOrderedBench(rabbitmqUrl(), [5]);
  try {
    // The first is active for all partitions; the others wait in line.
    const instances: ChildProcess[] = [];
    for (let instance = 0; instance <= KILLS; instance += 1) {
      instances.push(await startInstance(instance, options));
    }
    await publishKeyed(bench.channel, keyedMessages(bench.topic, KEYS, COUNT));
    for (let kills = 0; kills < KILLS; kills += 1) {
      const enough = told.length + 2 * CALLS_BETWEEN_KILLS;
      await until('the active one has handled some', () => told.length > enough);
      await kill(kills, instances[kills]!);
    }
    await until('all were handled', () => allEnded() === KEYS.length * COUNT, 30_000);
    await kill(KILLS, instances[KILLS]!);
    const { calls, ended, overlaps } = judge();
    expect(overlaps).toEqual([]);
    let repeats = 0;
    for (const key of KEYS) {
      const sequences = calls.get(key)!;
      const first = [...new Set(sequences)];
      expect(first).toEqual(numbersTo(COUNT));
      expect(ended.get(key)!.size).toBe(COUNT);
      // It goes back after a kill, and never forward by more than one.
      const steps = sequences.slice(1).map((sequence, index) => sequence - sequences[index]!);
      expect(Math.max(...steps)).toBe(1);
      repeats += sequences.length - COUNT;
    }
    // The kills hit handlers.
    expect(repeats).toBeGreaterThan(KILLS);
  } finally {
    await bench.close();
    await deleteOrdered(rabbitmqUrl(), options);
  }
}, 120_000);

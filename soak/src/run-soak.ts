import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CALM_MS_MAX, heal, untilCalm } from './calm.js';
import { checkAll } from './checker.js';
import { keepEvidence } from './evidence.js';
import { figuresOf } from './figures.js';
import type { Flags } from './flags.js';
import type { Fault } from './nemesis/fault.js';
import { type DoneFault, haunt } from './nemesis/nemesis.js';
import { scheduleOf } from './nemesis/schedule.js';
import { type Judgement, judge, lineOf, type RunRecord, say, tell } from './report.js';
import { gatherTruth } from './truth.js';
import { versionsOf } from './versions.js';
import { buildWorld, type World } from './world/world.js';

/*
 * One run: build the world, let the nemesis at it while the producers work, heal everything, wait
 * for calm, stop everything, read the truth and judge.
 */

/** Longer than any run is without progress: RabbitMQ and a database restarting one after the other. */
const PROGRESS_MS_MAX = 120_000;
const POLL_MS = 500;
const PROGRESS_TOLD_EVERY_MS = 10_000;

/** @returns whether every promise was kept and the faults did bite */
export async function runSoak(flags: Flags): Promise<boolean> {
  const { seed, transactions } = flags;
  const folder = mkdtempSync(join(tmpdir(), `escrowmq-soak-${seed}-`));
  const schedule = flags.calm ? [] : scheduleOf(flags);
  writeFileSync(join(folder, 'schedule.json'), JSON.stringify({ flags, schedule }, null, 1));
  say(`seed ${seed}: ${transactions} transactions, ${schedule.length} faults`);
  let verdict: Judgement['verdict'] | undefined;
  let world: World | undefined;
  try {
    world = await buildWorld({ ...flags, folder: join(folder, 'logs') });
    const record = await underFaults(world, { flags, schedule });
    const judgement = await readTruth(world, { record, folder });
    verdict = judgement.verdict;
    tell(judgement);
    process.stdout.write(`${lineOf(record, judgement)}\n`);
    return verdict === 'clean';
  } finally {
    if (verdict === 'clean') rmSync(folder, { recursive: true });
    else say(`kept: ${folder}`);
    await world?.close();
  }
}

async function underFaults(
  world: World,
  { flags, schedule }: { flags: Flags; schedule: readonly Fault[] },
): Promise<RunRecord> {
  const { transactions } = flags;
  const versions = await versionsOf(world);
  // RabbitMQ 3.10 forgets a quorum queue that was declared just before a SIGKILL.
  if (schedule.some((fault) => fault.kind === 'killServer')) await world.rabbitmq.restart();
  say('everything runs');

  const startedAt = performance.now();
  const progress = setInterval(() => tellProgress(world, transactions), PROGRESS_TOLD_EVERY_MS);
  const faults = await untilWorkIsDone(world, { done: haunt(world, schedule), transactions });
  clearInterval(progress);
  const seconds = (performance.now() - startedAt) / 1000;
  const rate = Math.round(transactions / seconds);
  say(
    `${transactions} transactions in ${seconds.toFixed(1)} s (${rate}/s) under ${faults.length} faults`,
  );

  await heal(world);
  const calmAfterMs = await untilCalm(world);
  say(
    calmAfterMs === undefined
      ? `not calm after ${CALM_MS_MAX / 1000} s`
      : `calm after ${(calmAfterMs / 1000).toFixed(1)} s`,
  );
  const children = Object.values(world.processes);
  await Promise.all(children.map((child) => child.stop()));
  const unexpectedExits = children.flatMap((child) => child.unexpectedExits());
  const { tally } = world;
  return { flags, versions, faults, tally, unexpectedExits, seconds, rate, calmAfterMs };
}

async function readTruth(
  world: World,
  { record, folder }: { record: RunRecord; folder: string },
): Promise<Judgement> {
  const truth = await gatherTruth(world, join(folder, 'truth.sqlite'));
  try {
    const judgement = judge(record, { findings: checkAll(truth), figures: figuresOf(truth) });
    const { verdict, findings } = judgement;
    if (verdict !== 'clean') keepEvidence(truth, { folder, findings, faults: record.faults });
    return judgement;
  } finally {
    truth.close();
  }
}

/** @throws Error when nothing was started for longer than any fault lasts */
async function untilWorkIsDone(
  world: World,
  { done, transactions }: { done: Promise<DoneFault[]>; transactions: number },
): Promise<DoneFault[]> {
  let last = { started: -1, at: performance.now() };
  let faults: DoneFault[] | undefined;
  const haunted = done.then((all) => {
    faults = all;
    // Each producer's half may be one more than half of it.
    world.grant(transactions + 1);
  });
  while (faults === undefined || !world.isDone()) {
    await (faults === undefined ? Promise.race([haunted, pause(POLL_MS)]) : pause(POLL_MS));
    const started = world.started();
    if (started !== last.started) last = { started, at: performance.now() };
    const isLate = performance.now() - last.at > PROGRESS_MS_MAX;
    if (isLate) {
      throw new Error(`no progress in ${PROGRESS_MS_MAX / 1000} s, after ${started} transactions`);
    }
  }
  return faults;
}

function tellProgress(world: World, transactions: number): void {
  const { committed, thrown, unknown } = world.tally.outcomes;
  say(
    `${world.started()} of ${transactions}: ${committed} committed, ${thrown} thrown, ${unknown} unknown`,
  );
}

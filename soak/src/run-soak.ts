import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { CALM_MS_MAX, heal, untilCalm } from './calm.js';
import { type CheckName, checkAll, type Finding } from './checker.js';
import { keepEvidence } from './evidence.js';
import { figuresOf } from './figures.js';
import type { Flags } from './flags.js';
import { type DoneFault, haunt } from './nemesis/nemesis.js';
import { scheduleOf } from './nemesis/schedule.js';
import { faultsByKind, notReached } from './reach.js';
import { gatherTruth } from './truth.js';
import { versionsOf } from './versions.js';
import { buildWorld, PRODUCERS, type World } from './world/world.js';

/*
 * One run: build the world, let the nemesis at it while the producers work, heal everything, wait
 * for calm, stop everything, read the truth and judge.
 */

/** Longer than any run is without progress: RabbitMQ and a database restarting one after the other. */
const PROGRESS_MS_MAX = 120_000;
const POLL_MS = 500;

/** @returns whether every promise was kept and the faults did bite */
export async function runSoak(flags: Flags): Promise<boolean> {
  const { seed, transactions, calm } = flags;
  const folder = mkdtempSync(join(tmpdir(), `escrowmq-soak-${seed}-`));
  const schedule = calm ? [] : scheduleOf(flags);
  writeFileSync(join(folder, 'schedule.json'), JSON.stringify({ flags, schedule }, null, 1));
  say(`seed ${seed}: ${transactions} transactions, ${schedule.length} faults`);
  const world = await buildWorld({ seed, transactions, folder: join(folder, 'logs') });
  try {
    const versions = await versionsOf(world);
    if (schedule.some((fault) => fault.kind === 'killServer')) await world.rabbitmq.restart();
    say('everything runs');

    const startedAt = performance.now();
    const progress = tellProgress(world, transactions);
    const done = haunt(world, schedule);
    const faults = await untilWorkIsDone(world, { done, transactions });
    const seconds = (performance.now() - startedAt) / 1000;
    clearInterval(progress);
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
    await Promise.all(Object.values(world.processes).map((child) => child.stop()));

    const truth = await gatherTruth(world, join(folder, 'truth.sqlite'));
    const findings = checkAll(truth);
    const figures = figuresOf(truth);
    const { duplicates, outcomes, struck } = world.tally;
    const ambiguousCommits = PRODUCERS.reduce(
      (sum, name) => sum + (struck[`${name}>database`] ?? 0),
      0,
    );
    const reach = { transactions, faults, ambiguousCommits, duplicates, ...figures };
    const missed = calm ? [] : notReached(reach);
    const checks = countsOf(findings);
    const isClean = Object.values(checks).every((count) => count === 0);
    const verdict = !isClean ? 'broken' : missed.length > 0 ? 'the faults did not bite' : 'clean';

    for (const [name, found] of Object.entries(findings)) tellFindings(name, found);
    for (const lack of missed) say(`not reached: ${lack}`);
    if (verdict === 'clean') rmSync(folder, { recursive: true });
    else keepEvidence(truth, { folder, findings, faults });
    if (verdict !== 'clean') say(`kept: ${folder}`);
    truth.close();
    const unexpectedExits = Object.values(world.processes).flatMap((child) =>
      child.unexpectedExits(),
    );
    process.stdout.write(
      `${JSON.stringify({
        seed,
        transactions,
        restarts: flags.restarts,
        versions,
        counts: figures,
        outcomes,
        faults: { total: faults.length, ...faultsByKind(faults) },
        ambiguousCommits,
        cutAtMoment: struck,
        duplicates,
        unexpectedExits,
        checks,
        notReached: missed,
        rate,
        seconds: Math.round(seconds),
        calmAfterMs: calmAfterMs ?? null,
        verdict,
      })}\n`,
    );
    return verdict === 'clean';
  } finally {
    await world.close();
  }
}

/** @throws Error when nothing was started for longer than any fault lasts */
async function untilWorkIsDone(
  world: World,
  { done, transactions }: { done: Promise<DoneFault[]>; transactions: number },
): Promise<DoneFault[]> {
  let last = { started: -1, at: performance.now() };
  let faults: DoneFault[] | undefined;
  void done.then((all) => {
    faults = all;
    world.grant(transactions + 1);
  });
  while (faults === undefined || !world.isDone()) {
    await Promise.race([pause(POLL_MS), ...(faults === undefined ? [done] : [])]);
    if (world.started() !== last.started)
      last = { started: world.started(), at: performance.now() };
    if (performance.now() - last.at > PROGRESS_MS_MAX) {
      throw new Error(`nothing was started for ${PROGRESS_MS_MAX / 1000} s, after ${last.started}`);
    }
  }
  return faults;
}

const PROGRESS_EVERY_MS = 10_000;

function tellProgress(world: World, transactions: number): NodeJS.Timeout {
  return setInterval(() => {
    const { committed, thrown, unknown } = world.tally.outcomes;
    say(
      `${world.started()} of ${transactions}: ${committed} committed, ${thrown} thrown, ${unknown} unknown`,
    );
  }, PROGRESS_EVERY_MS);
}

const countsOf = (findings: Record<CheckName, Finding[]>) =>
  Object.fromEntries(Object.entries(findings).map(([name, found]) => [name, found.length]));

/** The first few are enough to see what kind of thing it is; the folder has all. */
const FINDINGS_SHOWN_MAX = 5;

function tellFindings(name: string, found: readonly Finding[]): void {
  if (found.length === 0) return;
  say(`${name}: ${found.length}`);
  for (const finding of found.slice(0, FINDINGS_SHOWN_MAX)) say(`  ${JSON.stringify(finding)}`);
}

const say = (line: string): void => {
  process.stderr.write(`${line}\n`);
};

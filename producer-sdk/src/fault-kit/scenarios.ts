import { setTimeout as sleep } from 'node:timers/promises';
import { deferred } from './deferred.js';
import type { Fault, Op } from './kit-broker.js';
import type { Trial } from './trial.js';

/**
 * What a scenario does between the start of an attempt and its judgement. What it returns says why
 * it could not be tried.
 */
export type Play = (trial: Trial) => Promise<string | undefined>;

/** Applies to one kind of operation, and to no other. */
const only =
  (op: Op, fault: () => Fault) =>
  (seen: Op): Fault =>
    seen === op ? fault() : {};

/** A verdict whose first answer gets lost, so that it comes again. */
const twice =
  (op: 'commit' | 'rollback'): Play =>
  async (trial) => {
    let answers = 0;
    trial.episode.fault = only(op, () => {
      answers += 1;
      return answers === 1 ? { lose: 'answer' } : {};
    });
    undisturbed(trial, op);
    return undefined;
  };

/** A verdict that reaches the broker only after a check has decided. */
const late =
  (op: 'commit' | 'rollback'): Play =>
  async (trial) => {
    const checked = deferred();
    trial.episode.fault = only(op, () => ({ before: { effect: checked.promise } }));
    try {
      await untilSent(trial, op);
      await trial.ask('after it had ended');
    } finally {
      checked.resolve();
    }
    return undefined;
  };

/** A verdict that gets lost, with every repeat, until a check has decided. */
const lost =
  (op: 'commit' | 'rollback'): Play =>
  async (trial) => {
    let isLost = true;
    trial.episode.fault = only(op, () => (isLost ? { lose: 'request' } : {}));
    await untilSent(trial, op);
    await trial.ask('after it had ended');
    isLost = false;
    return undefined;
  };

/** A local transaction that nothing keeps from committing, or that is told to roll back. */
function undisturbed(trial: Trial, op: 'commit' | 'rollback'): void {
  if (op === 'commit') trial.mustCommit();
  trial.start(op === 'commit' ? 'commits' : 'rolls back');
}

/**
 * Some send commit before their local COMMIT: their transaction is still open when the verdict
 * comes, and is judged by what becomes of it.
 */
async function untilSent(trial: Trial, op: 'commit' | 'rollback'): Promise<void> {
  undisturbed(trial, op);
  await trial.prepared();
  await trial.arrivedOrEnded(op);
}

const open =
  (local: 'commits' | 'rolls back'): Play =>
  async (trial) => {
    trial.start('waits');
    await trial.paused();
    await trial.ask('while it was open');
    trial.resume(local);
    return undefined;
  };

/** Long enough that both checks wait for the row of the open transaction. */
const BOTH_WAIT_MS = 300;

const atOnce =
  (local: 'commits' | 'rolls back'): Play =>
  async (trial) => {
    trial.start('waits');
    await trial.paused();
    const asked = [trial.ask('while it was ending'), trial.ask('while it was ending')];
    await sleep(BOTH_WAIT_MS);
    trial.resume(local);
    await Promise.all(asked);
    return undefined;
  };

/** More than a broker asks after a decision, which is once. */
const REPEATED_CHECKS = 5;

const repeated =
  (op: 'commit' | 'rollback'): Play =>
  async (trial) => {
    await untilSent(trial, op);
    for (let asked = 0; asked < REPEATED_CHECKS; asked += 1) await trial.ask('after it had ended');
    return undefined;
  };

const losePrepare =
  (lose: 'request' | 'answer', times: number): Play =>
  async (trial) => {
    let arrived = 0;
    trial.episode.fault = only('prepare', () => {
      arrived += 1;
      return arrived <= times ? { lose } : {};
    });
    trial.start('commits');
    return undefined;
  };

/** How long the BEGIN of a local transaction waits for the prepare that belongs to it. */
const PREPARE_FOLLOWS_MS = 500;

/**
 * Brings an attempt to where the broker has the prepare and the local transaction has not begun.
 * Through a proxy its BEGIN is held. Without one the answer to prepare is, which keeps nobody who
 * prepares side by side with the local transaction.
 */
export async function beforeLocal(trial: Trial): Promise<{ release(): void }> {
  const { proxy, episode } = trial;
  const answer = deferred();
  if (proxy === undefined) {
    episode.fault = only('prepare', () => ({ before: { answer: answer.promise } }));
    trial.start('waits');
    await trial.prepared();
    return { release: answer.resolve };
  }
  let hold = proxy.holdNextBegin();
  trial.start('waits');
  for (;;) {
    await Promise.race([hold.held, trial.passed()]);
    const prepared = episode.arrival('prepare').then(() => true);
    const follows = await Promise.race([prepared, sleep(PREPARE_FOLLOWS_MS, false)]);
    if (follows || trial.hasPassed) break;
    // Another transaction, or one that prepares when it is open.
    hold.release();
    hold = proxy.holdNextBegin();
  }
  return { release: hold.release };
}

const checkBefore: Play = async (trial) => {
  const { release } = await beforeLocal(trial);
  try {
    await trial.prepared();
    if (trial.hasPassed) return ALREADY_OPEN;
    const answers = await trial.ask('before it began');
    if (trial.hasPassed && answers.every(({ decision }) => decision !== 'rollback')) {
      return ALREADY_OPEN;
    }
  } finally {
    release();
    trial.resume('commits');
  }
  return undefined;
};

const ALREADY_OPEN =
  'the local transaction was open already when its prepare came; connect its pool through kit.proxy(), without TLS, to try this';

const nothing =
  (op: 'commit' | 'rollback'): Play =>
  async (trial) => {
    undisturbed(trial, op);
    return undefined;
  };

/** More than any producer repeats. */
const EVERY_TIME = Number.POSITIVE_INFINITY;

export const AGREEMENT_SCENARIOS = {
  'an undisturbed transaction that commits': nothing('commit'),
  'an undisturbed transaction that rolls back': nothing('rollback'),
  'a commit that is sent twice': twice('commit'),
  'a rollback that is sent twice': twice('rollback'),
  'a commit that comes after a check': late('commit'),
  'a rollback that comes after a check': late('rollback'),
  'a commit that gets lost': lost('commit'),
  'a rollback that gets lost': lost('rollback'),
  'a prepare whose answer gets lost': losePrepare('answer', 1),
  'a prepare that is never answered': losePrepare('answer', EVERY_TIME),
  'a prepare that never arrives': losePrepare('request', EVERY_TIME),
  'a check before the local transaction begins': checkBefore,
  'a check while the local transaction is open': open('commits'),
  'a check while the local transaction is open, which rolls back': open('rolls back'),
  'two checks at once while the local transaction is open': atOnce('commits'),
  'two checks at once while the local transaction is open, which rolls back': atOnce('rolls back'),
  'repeated checks after a commit': repeated('commit'),
  'repeated checks after a rollback': repeated('rollback'),
} satisfies Record<string, Play>;

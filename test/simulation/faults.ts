import type { Process, Scheduler } from './scheduler.js';

/**
 * What goes wrong in a run, drawn by its seed. Each port asks at its own place whether it strikes now.
 * Their number is limited, so everything heals: what is still not done then is stuck.
 */
export class Faults {
  /** What struck, for the report of a run. */
  readonly struck: string[] = [];
  left: number;
  readonly #share: number;
  readonly #scheduler: Scheduler;
  readonly #world: Process;

  constructor(scheduler: Scheduler, world: Process) {
    const { random } = scheduler;
    this.#scheduler = scheduler;
    this.#world = world;
    // A third of all runs is calm but for slow steps: some mistakes need order and no fault.
    this.left = random.chance(1 / 3) ? 0 : 1 + random.below(FAULTS_MAX);
    this.#share = SHARE_MIN + random.next() * SHARE_SPREAD;
  }

  strike(what: string, weight = 1): boolean {
    if (this.left === 0 || !this.#scheduler.random.chance(this.#share * weight)) return false;
    this.left -= 1;
    this.struck.push(what);
    this.#scheduler.note(this.#world, `FAULT: ${what}`);
    return true;
  }
}

/** More only repeat what fewer show, and each makes its run longer. */
const FAULTS_MAX = 6;
/** Of the places at which something could go wrong: some thirty in a run of one transaction. */
const SHARE_MIN = 0.01;
const SHARE_SPREAD = 0.12;

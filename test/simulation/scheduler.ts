import { Random } from './random.js';

/**
 * Decides what happens next, from a seed and nothing else.
 *
 * A step is what one process does without waiting: everything from a call's answer up to its next
 * calls. Steps that can run are drawn at random. The clock stands still meanwhile; it goes on to the
 * next timer when nothing can run. Some steps are slow: they come after a delay, in which timers
 * fire and other steps pass them. A paused process runs none of its steps until its pause is over;
 * a crashed one never runs any.
 */
export class Process {
  readonly name: string;
  isAlive = true;
  pausedUntilMs = 0;

  constructor(name: string) {
    this.name = name;
  }
}

interface Step {
  owner: Process;
  name: string;
  run(): void;
}

/** Also what `setTimeout` returns: hence what Node's has beside. */
export class Timer implements Step {
  readonly owner: Process;
  readonly name: string;
  readonly run: () => void;
  atMs: number;
  /** Of two timers for the same time the older one fires first. */
  order = 0;
  /** A slow step; what is left of these is work, while a plain timer may tick for ever. */
  isStep = false;

  constructor(owner: Process, atMs: number, { name, run }: Pick<Step, 'name' | 'run'>) {
    this.owner = owner;
    this.atMs = atMs;
    this.name = name;
    this.run = run;
  }

  ref(): this {
    return this;
  }

  unref(): this {
    return this;
  }

  hasRef(): boolean {
    return true;
  }
}

/** Short ones only mix; then past an attempt (1 s), a prepare (2 s), a confirm (10 s), a lease (30 s). */
const DELAYS_MS = [3, 60, 1_100, 2_500, 11_000, 35_000] as const;

export class Scheduler {
  readonly random: Random;
  nowMs = 0;
  stepsDone = 0;
  /** Whose step is running, and so whose timers are being set. */
  current: Process;
  /** Lines for people; undefined costs nothing. */
  readonly trace: string[] | undefined;
  /** Of all steps, until `slowLeft` are used up. */
  slowShare = 0;
  slowLeft = 0;
  #ready: Step[] = [];
  #timers: Timer[] = [];
  #slow = 0;
  #order = 0;

  constructor(seed: number, options: { world: Process; isTraced: boolean }) {
    this.random = new Random(seed);
    this.current = options.world;
    this.trace = options.isTraced ? [] : undefined;
  }

  /** Something at a port: it happens when its turn comes. */
  park(owner: Process, name: string, run: () => void): void {
    if (!owner.isAlive) return;
    if (this.slowLeft > 0 && this.random.chance(this.slowShare)) {
      this.slowLeft -= 1;
      const delayMs = this.random.pick(DELAYS_MS);
      if (this.trace !== undefined) this.note(owner, `(${name} takes ${delayMs} ms)`);
      this.#addStep({ owner, name, run }, this.nowMs + delayMs);
      return;
    }
    this.#ready.push({ owner, name, run });
  }

  /** At once, with no delay: `setImmediate`. */
  soon(owner: Process, run: () => void): void {
    if (owner.isAlive) this.#ready.push({ owner, name: 'goes on', run });
  }

  after(owner: Process, delayMs: number, timer: Pick<Step, 'name' | 'run'>): Timer {
    return this.#add(new Timer(owner, this.nowMs + Math.max(0, delayMs), timer));
  }

  cancel(timer: Timer): void {
    const index = this.#timers.indexOf(timer);
    if (index >= 0) this.#timers.splice(index, 1);
  }

  crash(process: Process): void {
    process.isAlive = false;
    this.#ready = this.#ready.filter(({ owner }) => owner !== process);
    this.#timers = this.#timers.filter(({ owner }) => owner !== process);
    this.#slow = this.#timers.filter(({ isStep }) => isStep).length;
  }

  /** Nothing is on its way: only timers may go on. */
  get isIdle(): boolean {
    return this.#ready.length === 0 && this.#slow === 0;
  }

  /** @returns false when there is nothing left to do */
  step(): boolean {
    while (this.#ready.length > 0) {
      const step = this.#draw();
      if (!this.#isPaused(step)) {
        this.#run(step);
        return true;
      }
    }
    while (this.#timers.length > 0) {
      const timer = this.#nextTimer();
      this.nowMs = Math.max(this.nowMs, timer.atMs);
      if (timer.isStep) this.#slow -= 1;
      if (!this.#isPaused(timer)) {
        this.#run(timer);
        return true;
      }
    }
    return false;
  }

  note(process: Process, text: string): void {
    this.trace?.push(`${(this.nowMs / 1000).toFixed(3).padStart(9)}  ${process.name}: ${text}`);
  }

  #draw(): Step {
    const index = this.#ready.length === 1 ? 0 : this.random.below(this.#ready.length);
    const step = this.#ready[index] as Step;
    const last = this.#ready.pop() as Step;
    if (index < this.#ready.length) this.#ready[index] = last;
    return step;
  }

  #addStep(step: Step, atMs: number): void {
    const timer = new Timer(step.owner, atMs, step);
    timer.isStep = true;
    this.#slow += 1;
    this.#add(timer);
  }

  #add(timer: Timer): Timer {
    this.#order += 1;
    timer.order = this.#order;
    // A crashed process sets no timer; whoever cancels it all the same finds none.
    if (timer.owner.isAlive) this.#timers.push(timer);
    return timer;
  }

  #nextTimer(): Timer {
    // A run has some ten timers: looking at each is cheaper than a heap.
    let next = 0;
    for (let index = 1; index < this.#timers.length; index += 1) {
      if (isBefore(this.#timers[index] as Timer, this.#timers[next] as Timer)) next = index;
    }
    const [timer] = this.#timers.splice(next, 1);
    return timer as Timer;
  }

  /** A paused process does all of it when it wakes up. */
  #isPaused(step: Step): boolean {
    const { pausedUntilMs } = step.owner;
    if (pausedUntilMs <= this.nowMs) return false;
    if (step instanceof Timer && !step.isStep) {
      step.atMs = pausedUntilMs;
      this.#add(step);
    } else this.#addStep(step, pausedUntilMs);
    return true;
  }

  #run(step: Step): void {
    this.stepsDone += 1;
    this.current = step.owner;
    if (this.trace !== undefined) this.note(step.owner, step.name);
    step.run();
  }
}

const isBefore = (a: Timer, b: Timer): boolean =>
  a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);

import { syncBuiltinESMExports } from 'node:module';
import promised from 'node:timers/promises';
import { type Scheduler, Timer } from './scheduler.js';

/**
 * Puts the scheduler under everything by which a program waits, tells the time or draws at random, for
 * all code of this process. A run begins at the same time of day, so that it is the same on every day.
 */
const EPOCH_MS = Date.UTC(2026, 0, 1);

/** Set around each run: the globals below have no other way to know whose run it is. */
let running: Scheduler | undefined;

/** The real ones, for whoever drives the runs. */
export const real = {
  setImmediate: globalThis.setImmediate,
  performanceNow: performance.now.bind(performance),
};

function scheduler(): Scheduler {
  if (running === undefined) throw new Error('simulated code runs outside of a run');
  return running;
}

function setVirtualTimeout(callback: (...given: unknown[]) => void, ms = 0, ...given: unknown[]) {
  const current = scheduler();
  const run = given.length === 0 ? (callback as () => void) : () => callback(...given);
  // Node waits for a millisecond at least.
  return current.after(current.current, Math.max(1, ms), { name: 'timer', run });
}

function clearVirtualTimeout(timer: unknown): void {
  if (timer instanceof Timer) running?.cancel(timer);
}

function setVirtualImmediate(callback: (...given: unknown[]) => void, ...given: unknown[]) {
  const current = scheduler();
  current.soon(current.current, () => callback(...given));
}

const sleep = <T>(ms?: number, value?: T): Promise<T> =>
  new Promise((resolve) => setVirtualTimeout(() => resolve(value as T), ms));

/** For good: this process does nothing but simulate. */
export function installVirtualTime(): void {
  Object.assign(globalThis, {
    setTimeout: setVirtualTimeout,
    clearTimeout: clearVirtualTimeout,
    setImmediate: setVirtualImmediate,
  });
  Object.defineProperty(performance, 'now', { value: () => scheduler().nowMs, configurable: true });
  Date.now = virtualNow;
  Math.random = () => scheduler().random.next();
  Object.assign(promised, { setTimeout: sleep });
  // Only this changes what `import { setTimeout } from 'node:timers/promises'` has bound.
  syncBuiltinESMExports();
}

export const virtualNow = (): number => EPOCH_MS + scheduler().nowMs;

/**
 * Runs steps until `isOver` says so or nothing is left. Between two steps all microtasks run: a tick
 * asked for in a microtask comes when none is left, which takes a fraction of a turn of the real event
 * loop. The microtask is one of a promise, as `queueMicrotask` wraps each of its own into a resource
 * for async_hooks, which was 5 % of all that a run allocates.
 */
export function drive(run: Scheduler, isOver: () => boolean): Promise<void> {
  running = run;
  return new Promise((resolve, reject) => {
    const resolved = Promise.resolve();
    const askForTick = () => process.nextTick(tick);
    function tick(): void {
      try {
        if (isOver() || !run.step()) {
          // Once around the real loop, so that an unhandled rejection is told during its own run.
          real.setImmediate(resolve);
          return;
        }
        void resolved.then(askForTick);
      } catch (error) {
        reject(error);
      }
    }
    tick();
  });
}

/** Makes `run` the one whose clock and dice everybody sees; `drive` follows. */
export function beginRun(run: Scheduler): void {
  running = run;
}

import type { Observer } from '../domain/ports.js';

/**
 * Runs a pass for ever: again at once while there is more to do, else after `idleMs` or a wake-up.
 * A pass that fails is reported and tried again after a pause that grows, because what it needs
 * (the store, RabbitMQ) is most likely away.
 */
export interface LoopOptions {
  name: string;
  /** One pass; resolves with true when there may be more to do at once. */
  pass(): Promise<boolean>;
  idleMs: number;
  observer: Pick<Observer, 'failed'>;
}

export interface Loop {
  /** Ends the current pause, or makes the pass after this one follow at once. */
  wake(): void;
  /** No further pass; resolves when the current one has ended. */
  stop(): Promise<void>;
}

/** A store that is away is asked again after at most this long. */
const FAILURE_PAUSE_MS_MAX = 5_000;

export function startLoop({ name, pass, idleMs, observer }: LoopOptions): Loop {
  let stopped = false;
  let woken = false;
  let endPause: (() => void) | undefined;

  function pause(ms: number): Promise<void> {
    if (woken || stopped) return Promise.resolve();
    return new Promise((resolve) => {
      const timer = setTimeout(() => endPause?.(), ms);
      endPause = () => {
        clearTimeout(timer);
        endPause = undefined;
        resolve();
      };
    });
  }

  async function run(): Promise<void> {
    let failures = 0;
    while (!stopped) {
      woken = false;
      try {
        const more = await pass();
        failures = 0;
        // A full pass still lets requests in before the next one.
        if (more) await new Promise((resolve) => setImmediate(resolve));
        else await pause(idleMs);
      } catch (error) {
        failures += 1;
        observer.failed(name, error);
        await pause(Math.min(idleMs * 2 ** Math.min(failures, 10), FAILURE_PAUSE_MS_MAX));
      }
    }
  }

  const running = run();
  return {
    wake() {
      woken = true;
      endPause?.();
    },
    stop() {
      stopped = true;
      endPause?.();
      return running;
    },
  };
}

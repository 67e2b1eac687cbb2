import { callForeign } from '@escrowmq/database';
import type { BegunWork } from './begun-work.js';
import type { Stop } from './stop.js';
import type { Limited, TimeLimits } from './time-limits.js';

/** What the call of a handler ended with. */
export type CallEnd = { error: unknown } | { result: unknown };

export interface HandlerCallParts {
  /** Calls the handler. */
  call(): unknown;
  /** Behind the signal that the handler gets. */
  stop: Stop;
  /** What the handler begins for its messages. @default it has none */
  work?: BegunWork;
  /** Of the delivery, or of one of those that are handled together: they are lost together. */
  abandoned: Stop;
  limits: TimeLimits;
  /** Called once: with what the handler returned or threw, or why it was not waited for. */
  ended(end: CallEnd): void;
}

/**
 * Calls a handler and tells how it ended: by itself, by its time limit, or because the delivery was
 * abandoned; a handler that goes on after that does work that nobody counts. One that returns no
 * promise, and leaves no work open, is over when it returns and costs neither a promise nor a place
 * among the limits.
 */
export function callHandler(parts: HandlerCallParts): void {
  const running = new RunningHandler(parts);
  parts.work?.start();
  callForeign(parts.call, {
    waits: () => running.wait(),
    returned: (result) => running.leave({ result }),
    threw: (error) => running.leave({ error }),
  });
}

class RunningHandler implements Limited {
  readonly #parts: HandlerCallParts;
  #phase: 'called' | 'waiting' | 'over' = 'called';
  /** How the handler ended, while work that it began is still under way. */
  #left: CallEnd | undefined;
  endsAt = 0;

  constructor(parts: HandlerCallParts) {
    this.#parts = parts;
  }

  /** It goes on after its call has returned. */
  wait(): void {
    if (this.#phase !== 'called') return;
    this.#phase = 'waiting';
    const { limits, abandoned } = this.#parts;
    limits.begin(this);
    abandoned.onStop((reason) => this.#stop(reason));
  }

  /** The handler itself has ended. */
  leave(end: CallEnd): void {
    const { work } = this.#parts;
    if (this.#phase === 'over') return;
    const problem = 'error' in end ? undefined : work?.problem();
    const judged = problem === undefined ? end : { error: problem };
    if (work?.isOpen !== true) {
      this.#end(judged);
      return;
    }
    this.#left = judged;
    this.wait();
    void work.none().then(() => this.#end(judged));
  }

  outOfTime(): void {
    this.#stop(new Error(`the handler did not finish within ${this.#parts.limits.limitMs} ms`));
  }

  #stop(reason: unknown): void {
    this.#parts.stop.stop(reason);
    this.#end(this.#left ?? { error: reason });
  }

  #end(end: CallEnd): void {
    if (this.#phase === 'over') return;
    const wasWaiting = this.#phase === 'waiting';
    this.#phase = 'over';
    const { limits, abandoned, work, ended } = this.#parts;
    if (wasWaiting) {
      limits.end(this);
      abandoned.onStop(undefined);
    }
    work?.end();
    ended(end);
  }
}

import type { Stop } from './stop.js';
import type { Limited, TimeLimits } from './time-limits.js';

/** What the call of a handler ended with. */
export type CallEnd = { error: unknown } | { result: unknown };

export interface HandlerCallParts {
  /** Calls the handler. */
  call(): unknown;
  /** Behind the signal that the handler gets. */
  stop: Stop;
  /** Of the delivery, or of one of those that are handled together: they are lost together. */
  abandoned: Stop;
  limits: TimeLimits;
  /** Called once: with what the handler returned or threw, or why it was not waited for. */
  ended(end: CallEnd): void;
}

/**
 * Calls a handler and tells how it ended: by itself, by its time limit, or because the delivery was
 * abandoned; a handler that goes on after that does work that nobody counts. One that returns no
 * promise is over when it returns and costs neither a promise nor a place among the limits.
 */
export function callHandler(parts: HandlerCallParts): void {
  let returned: unknown;
  try {
    returned = parts.call();
  } catch (error) {
    parts.ended({ error });
    return;
  }
  if (isThenable(returned)) new RunningHandler(parts).follow(returned);
  else parts.ended({ result: returned });
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  return (
    value !== null &&
    typeof value === 'object' &&
    'then' in value &&
    typeof value.then === 'function'
  );
}

class RunningHandler implements Limited {
  readonly #parts: HandlerCallParts;
  #isOver = false;
  endsAt = 0;

  constructor(parts: HandlerCallParts) {
    this.#parts = parts;
  }

  follow(returned: PromiseLike<unknown>): void {
    const { limits, abandoned } = this.#parts;
    limits.begin(this);
    abandoned.onStop((reason) => this.#stop(reason));
    // A promise is taken as it is; anything else that has a `then` is made one.
    Promise.resolve(returned).then(
      (result) => this.#end({ result }),
      (error: unknown) => this.#end({ error }),
    );
  }

  outOfTime(): void {
    this.#stop(new Error(`the handler did not finish within ${this.#parts.limits.limitMs} ms`));
  }

  #stop(reason: unknown): void {
    this.#parts.stop.stop(reason);
    this.#end({ error: reason });
  }

  #end(end: CallEnd): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#parts.limits.end(this);
    this.#parts.abandoned.onStop(undefined);
    this.#parts.ended(end);
  }
}

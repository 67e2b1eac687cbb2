import { guardedController } from './guarded-signal.js';

/**
 * Tells one listener that something must end early, and why. In the place of an `AbortSignal`, which
 * costs some microseconds to make and to listen to, twice for each message, and which few handlers
 * ever look at: here it is made when it is looked at.
 */
export class Stop {
  #isStopped = false;
  #reason: unknown;
  #listener: ((reason: unknown) => void) | undefined;
  #controller: AbortController | undefined;
  readonly #listenerFailed: (error: unknown) => void;

  /** @param listenerFailed is told what a listener of the signal threw */
  constructor(listenerFailed: (error: unknown) => void = () => {}) {
    this.#listenerFailed = listenerFailed;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** The same as a signal, aborted already when this is stopped. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = guardedController(this.#listenerFailed);
      if (this.#isStopped) this.#controller.abort(this.#reason);
    }
    return this.#controller.signal;
  }

  /** The first one counts. */
  stop(reason: unknown): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#reason = reason;
    this.#controller?.abort(reason);
    this.#listener?.(reason);
  }

  /** Takes the place of the listener before; undefined: nobody listens. */
  onStop(listener: ((reason: unknown) => void) | undefined): void {
    this.#listener = listener;
  }
}

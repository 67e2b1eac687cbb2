/**
 * The time limit of all handlers of one subscription. It is the same for each, so they run out in
 * the order in which they began, and one timer for the oldest is enough: a timer for each message
 * costs 1 µs, and almost none ever fires.
 */
export interface Limited {
  /** On the clock of `performance.now`; set by `begin`. */
  endsAt: number;
  /** Called once its time is over. */
  outOfTime(): void;
}

export class TimeLimits {
  readonly limitMs: number;
  /** A set keeps the order in which it was filled. */
  readonly #running = new Set<Limited>();
  #timer: NodeJS.Timeout | undefined;

  constructor(limitMs: number) {
    this.limitMs = limitMs;
  }

  begin(limited: Limited): void {
    limited.endsAt = performance.now() + this.limitMs;
    this.#running.add(limited);
    this.#wakeIn(this.limitMs);
  }

  /** The timer is left alone: at its time it looks who is the oldest then. */
  end(limited: Limited): void {
    this.#running.delete(limited);
  }

  #wakeIn(delayMs: number): void {
    if (this.#timer !== undefined) return;
    // Unreferenced: it may be left behind by handlers that have long ended, and those that have
    // not are kept alive by whatever they wait for.
    this.#timer = setTimeout(() => this.#expire(), delayMs).unref();
  }

  #expire(): void {
    this.#timer = undefined;
    const now = performance.now();
    for (const limited of this.#running) {
      if (limited.endsAt > now) {
        // Rounded up, or the timer wakes a moment too early and again.
        this.#wakeIn(Math.ceil(limited.endsAt - now));
        return;
      }
      this.#running.delete(limited);
      limited.outOfTime();
    }
  }
}

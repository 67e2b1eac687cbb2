const MINUTE_MS = 60_000;

/** The first of a kind is said at once, and those that follow once a minute, by their number. */
export class OnceAMinute {
  #saidAt = Number.NEGATIVE_INFINITY;
  #count = 0;

  /**
   * Counts one.
   * @param now ms on a clock that only goes forward
   * @returns how many to tell of now, those since the last time and this one; undefined: none
   */
  count(now: number): number | undefined {
    this.#count += 1;
    if (now - this.#saidAt < MINUTE_MS) return undefined;
    const count = this.#count;
    this.#saidAt = now;
    this.#count = 0;
    return count;
  }
}

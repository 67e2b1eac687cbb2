import { within } from '../deadline.js';

/** Lets one at a time through, in the order in which they came. */
export class Turns {
  readonly #waiting: (() => void)[] = [];
  #isTaken = false;

  /**
   * @param limitMs for waiting; whoever waited longer gets `late()`, and no turn
   * @returns what ends the turn; to be called once
   */
  async take(limitMs: number, late: () => Error): Promise<() => void> {
    if (this.#isTaken) {
      const turn = new Promise<void>((resolve) => this.#waiting.push(resolve));
      // A turn that comes too late is passed on.
      await within(turn, limitMs, { error: late, giveBack: () => this.#next() });
    }
    this.#isTaken = true;
    return () => this.#next();
  }

  #next(): void {
    const next = this.#waiting.shift();
    this.#isTaken = next !== undefined;
    next?.();
  }
}

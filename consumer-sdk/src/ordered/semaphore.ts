/** The right to run, held by one piece of work. */
export interface Permit {
  /** Lets somebody else run while `waiting` lasts; has a permit again when it resolves. */
  whileIn(waiting: Promise<void>): Promise<void>;
}

/** Lets at most so many run at a time, in the order in which they asked. */
export class Semaphore {
  #free: number;
  readonly #asking: (() => void)[] = [];

  constructor(permits: number) {
    this.#free = permits;
  }

  /** Resolves when `work` is done, as it does. */
  async hold(work: (permit: Permit) => Promise<void>): Promise<void> {
    await this.#take();
    try {
      await work({ whileIn: (waiting) => this.#whileIn(waiting) });
    } finally {
      this.#giveBack();
    }
  }

  async #whileIn(waiting: Promise<void>): Promise<void> {
    this.#giveBack();
    try {
      await waiting;
    } finally {
      await this.#take();
    }
  }

  #take(): Promise<void> {
    if (this.#free > 0) {
      this.#free -= 1;
      return Promise.resolve();
    }
    return new Promise((resolve) => this.#asking.push(resolve));
  }

  #giveBack(): void {
    const next = this.#asking.shift();
    // Handed on, and not put down first: nobody who asks later may come in between.
    if (next === undefined) this.#free += 1;
    else next();
  }
}

/** Runs tasks one after the other, never two at a time. */
export class InOrder {
  readonly #waiting: (() => Promise<void>)[] = [];
  #isRunning = false;

  /** Behind everything that waits. A task must not reject. */
  later(task: () => Promise<void>): void {
    this.#waiting.push(task);
    void this.#run();
  }

  /** Ahead of everything that waits. Resolves or rejects with the task. */
  next<T>(task: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      this.#waiting.unshift(() => task().then(resolve, reject));
      void this.#run();
    });
  }

  async #run(): Promise<void> {
    if (this.#isRunning) return;
    this.#isRunning = true;
    for (let task = this.#waiting.shift(); task !== undefined; task = this.#waiting.shift()) {
      await task();
    }
    this.#isRunning = false;
  }
}

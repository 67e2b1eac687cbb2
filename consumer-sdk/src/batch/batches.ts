/**
 * Gathers what arrives into batches, of which one is handled at a time. It knows nothing of
 * messages.
 *
 * What is `alone` makes a batch of its own: it has failed before, or came back unsettled, and may
 * be what spoils every batch that it is in. Without that, its company would fail with it, attempt
 * for attempt, until all are dead letters.
 */
export interface Gathered {
  readonly isAlone: boolean;
}

export interface BatchesOptions<Item> {
  batchMax: number;
  /** From the arrival of the first one, unless it is full before. */
  waitMs: number;
  /** Never rejects. */
  handle(batch: Item[]): Promise<void>;
}

export class Batches<Item extends Gathered> {
  readonly #options: BatchesOptions<Item>;
  /** When each arrived, in that order; on the clock of `performance.now`. */
  readonly #waiting = new Map<Item, number>();
  #isHandling = false;
  #isOver = false;
  /** At most one of them is set. */
  #immediate: NodeJS.Immediate | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: BatchesOptions<Item>) {
    this.#options = options;
  }

  add(item: Item): void {
    this.#waiting.set(item, performance.now());
    this.#plan();
  }

  /** Takes back what is not in a batch yet. */
  remove(item: Item): void {
    this.#waiting.delete(item);
  }

  /** Begins no more batches. Returns what was waiting. */
  end(): Item[] {
    this.#isOver = true;
    clearImmediate(this.#immediate);
    clearTimeout(this.#timer);
    const left = [...this.#waiting.keys()];
    this.#waiting.clear();
    return left;
  }

  #plan(): void {
    if (this.#isHandling || this.#isOver || this.#immediate !== undefined) return;
    const { batchMax, waitMs } = this.#options;
    const [first] = this.#waiting.values();
    if (first === undefined) return;
    const waitsMs = this.#waiting.size >= batchMax ? 0 : first + waitMs - performance.now();
    if (waitsMs > 0) {
      this.#timer ??= setTimeout(() => {
        this.#timer = undefined;
        this.#plan();
      }, Math.ceil(waitsMs));
      return;
    }
    clearTimeout(this.#timer);
    this.#timer = undefined;
    // After everything readable has been read: what arrives together is one batch.
    this.#immediate = setImmediate(() => {
      this.#immediate = undefined;
      this.#begin();
    });
  }

  #begin(): void {
    const batch = this.#takeBatch();
    if (batch.length === 0) return;
    this.#isHandling = true;
    void this.#options.handle(batch).then(() => {
      this.#isHandling = false;
      this.#plan();
    });
  }

  #takeBatch(): Item[] {
    const batch: Item[] = [];
    for (const item of this.#waiting.keys()) {
      if (batch.length > 0 && item.isAlone) continue;
      batch.push(item);
      this.#waiting.delete(item);
      if (item.isAlone || batch.length === this.#options.batchMax) break;
    }
    return batch;
  }
}

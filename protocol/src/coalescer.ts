/**
 * Turns concurrent calls into batches. One flush is in flight at a time; what arrives meanwhile is
 * the next batch, and a call returns when its own batch is done. There is no timer: batches form
 * from concurrency alone, so a lone call waits for nothing. Two and four flushes at a time, of
 * smaller batches, were no faster: docs/performance.md has the figures.
 *
 * A flush starts in `setImmediate`, after everything readable has been read. Measured on SQLite:
 * starting it in a microtask made batches of one, 5,000 calls a second against 22,000.
 *
 * It does not retry and does not merge: items that concern the same thing (`keyOf`) go into
 * successive batches, in order, so that a flush never sees a key twice.
 */
export interface CoalescerOptions<In, Out> {
  /** Called with 1 to `batchMax` items; returns one result per item, in order. */
  flush(items: In[]): Promise<Out[]>;
  /** Number of items in one batch, at most. */
  batchMax: number;
  /** Sum of `sizeOf` in one batch; a single larger item goes alone. @default no limit */
  batchBytesMax?: number;
  /** Bytes that an item counts for. @default 0 */
  sizeOf?(item: In): number;
  /** Two items with the same key are never in one batch. @default no key */
  keyOf?(item: In): string;
  /** Number of calls that may wait; one more is refused with `refuse()`. */
  waitingMax: number;
  /** Sum of `sizeOf` that may wait; what exceeds it is refused, unless nothing else waits. @default no limit */
  waitingBytesMax?: number;
  /** The error for a call that finds the queue full. */
  refuse(): Error;
}

/** Turns concurrent calls into batches. */
export interface Coalescer<In, Out> {
  /** Resolves to what the flush answered for this item, or rejects with what it threw. */
  call(item: In): Promise<Out>;
  /** Number of calls that wait or are in flight. */
  readonly size: number;
  /** Resolves when nothing waits and nothing is in flight. */
  idle(): Promise<void>;
}

interface Waiting<In, Out> {
  item: In;
  bytes: number;
  key: string | undefined;
  resolve(result: Out): void;
  reject(error: unknown): void;
}

/** Makes a coalescer; it holds nothing that would have to be closed. */
export function createCoalescer<In, Out>(options: CoalescerOptions<In, Out>): Coalescer<In, Out> {
  const { flush, batchMax, waitingMax, refuse } = options;
  const batchBytesMax = options.batchBytesMax ?? Number.POSITIVE_INFINITY;
  const waitingBytesMax = options.waitingBytesMax ?? Number.POSITIVE_INFINITY;
  let waiting: Waiting<In, Out>[] = [];
  let waitingBytes = 0;
  let inFlight = 0;
  let scheduled = false;
  let idleWaiters: (() => void)[] = [];

  const isFull = (bytes: number): boolean =>
    waiting.length >= waitingMax || (waiting.length > 0 && waitingBytes + bytes > waitingBytesMax);

  /** Takes from the front what fits; what must wait for its key keeps its order. */
  function takeBatch(): Waiting<In, Out>[] {
    const batch: Waiting<In, Out>[] = [];
    const held: Waiting<In, Out>[] = [];
    const keys = new Set<string>();
    let bytes = 0;
    let looked = 0;
    for (const entry of waiting) {
      if (batch.length === batchMax) break;
      if (batch.length > 0 && bytes + entry.bytes > batchBytesMax) break;
      looked += 1;
      if (entry.key !== undefined) {
        if (keys.has(entry.key)) {
          held.push(entry);
          continue;
        }
        keys.add(entry.key);
      }
      bytes += entry.bytes;
      batch.push(entry);
    }
    waiting = [...held, ...waiting.slice(looked)];
    waitingBytes -= bytes;
    return batch;
  }

  async function run(): Promise<void> {
    scheduled = false;
    const batch = takeBatch();
    inFlight = batch.length;
    try {
      const results = await flush(batch.map((entry) => entry.item));
      if (results.length !== batch.length) {
        throw new Error(`a flush of ${batch.length} items returned ${results.length} results`);
      }
      batch.forEach((entry, index) => {
        entry.resolve(results[index] as Out);
      });
    } catch (error) {
      for (const entry of batch) entry.reject(error);
    }
    inFlight = 0;
    schedule();
    if (waiting.length + inFlight > 0) return;
    for (const wake of idleWaiters) wake();
    idleWaiters = [];
  }

  function schedule(): void {
    if (scheduled || inFlight > 0 || waiting.length === 0) return;
    scheduled = true;
    setImmediate(() => void run());
  }

  return {
    call(item) {
      const bytes = options.sizeOf?.(item) ?? 0;
      if (isFull(bytes)) return Promise.reject(refuse());
      return new Promise<Out>((resolve, reject) => {
        waiting.push({ item, bytes, key: options.keyOf?.(item), resolve, reject });
        waitingBytes += bytes;
        schedule();
      });
    },
    get size() {
      return waiting.length + inFlight;
    },
    idle() {
      if (waiting.length + inFlight === 0) return Promise.resolve();
      return new Promise((resolve) => idleWaiters.push(resolve));
    },
  };
}

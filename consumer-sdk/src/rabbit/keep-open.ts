import { setTimeout as pause } from 'node:timers/promises';

/**
 * Keeps one thing open: a connection, or a channel with everything on it. What is lost is opened
 * again, for ever, with growing pauses; whoever needs the thing meanwhile waits for the next one.
 *
 * It knows nothing of AMQP. The connection is one such thing, and each channel is another that
 * waits for the connection, so a channel error heals alone and a connection error heals both.
 */
export interface Opened<T> {
  value: T;
  /** Resolves with the reason when it is lost; never rejects. */
  lost: Promise<unknown>;
  close(): Promise<void>;
}

export interface KeepOpenOptions<T> {
  /** What is kept, for errors: "the connection to RabbitMQ". */
  what: string;
  /** One attempt. Must end within a limit of its own, and soon after `signal` is aborted. */
  open(signal: AbortSignal): Promise<Opened<T>>;
  onOpen?(): void;
  onLost(cause: unknown, retryInMs: number): void;
  /** True when trying again is of no use. Asked only until the thing was open once. */
  isFatal(error: unknown): boolean;
}

export interface KeptOpen<T> {
  /** The open thing, without waiting. */
  readonly current: T | undefined;
  /** Waits for the open thing. Rejects when it took too long, failed for good, or was closed. */
  get(timeoutMs: number, signal?: AbortSignal): Promise<T>;
  close(): Promise<void>;
}

/** The first pause; a lost connection to a server that lives comes back at once. */
const RETRY_MS_MIN = 200;
/** A consumer is back this long after RabbitMQ at the latest. */
const RETRY_MS_MAX = 15_000;
/** What was open this long counts as healthy: its loss starts again with the first pause. */
const HEALTHY_AFTER_MS = 10_000;

/** Doubles, and spreads over half its length, so that a fleet does not come back in one moment. */
export function retryDelayMs(failures: number, random: number): number {
  const full = Math.min(RETRY_MS_MAX, RETRY_MS_MIN * 2 ** Math.min(failures, 16));
  return Math.round(full / 2 + (full / 2) * random);
}

export function keepOpen<T>(options: KeepOpenOptions<T>): KeptOpen<T> {
  const closing = new AbortController();
  const closed = new Promise<void>((resolve) => {
    closing.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  let current: Opened<T> | undefined;
  let openedOnce = false;
  let fatal: { error: unknown } | undefined;
  let lastError: unknown;
  const waiters = new Set<() => void>();

  const wake = () => {
    for (const look of [...waiters]) look();
  };

  /** Opens once and stays until it is lost or closed. Returns why. */
  async function openAndStay(): Promise<unknown> {
    const opened = await options.open(closing.signal);
    let cause: unknown;
    if (!closing.signal.aborted) {
      current = opened;
      openedOnce = true;
      options.onOpen?.();
      wake();
      cause = await Promise.race([opened.lost, closed]);
      current = undefined;
    }
    // What is lost may still be there in part: a channel whose consumer was cancelled is open.
    await opened.close();
    return cause;
  }

  async function run(): Promise<void> {
    let failures = 0;
    while (!closing.signal.aborted) {
      const since = performance.now();
      try {
        lastError = await openAndStay();
      } catch (error) {
        lastError = error;
        if (!openedOnce && options.isFatal(error)) {
          fatal = { error };
          wake();
          return;
        }
      }
      if (closing.signal.aborted) return;
      if (performance.now() - since >= HEALTHY_AFTER_MS) failures = 0;
      const delayMs = retryDelayMs(failures, Math.random());
      failures += 1;
      options.onLost(lastError, delayMs);
      // Closing cuts the pause short; the loop's own condition sees that.
      await pause(delayMs, undefined, { signal: closing.signal }).catch(() => undefined);
    }
  }

  const running = run();

  return {
    get current() {
      return current?.value;
    },
    get(timeoutMs, signal) {
      return new Promise<T>((resolve, reject) => {
        const finish = (settle: () => void) => {
          clearTimeout(timer);
          waiters.delete(look);
          signal?.removeEventListener('abort', look);
          settle();
        };
        const look = () => {
          if (current !== undefined) {
            const { value } = current;
            finish(() => resolve(value));
          } else if (fatal !== undefined) {
            const { error } = fatal;
            finish(() => reject(error));
          } else if (closing.signal.aborted || signal?.aborted) {
            finish(() => reject(new Error(`${options.what} is closed`)));
          }
        };
        const timer = setTimeout(() => {
          const message = `${options.what} was not open within ${timeoutMs} ms`;
          finish(() => reject(new Error(message, { cause: lastError })));
        }, timeoutMs);
        waiters.add(look);
        signal?.addEventListener('abort', look, { once: true });
        look();
      });
    },
    async close() {
      closing.abort();
      wake();
      await running;
    },
  };
}

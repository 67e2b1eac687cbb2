import type { SubscribeSettings } from '../options.js';
import type { RetryPolicy } from './next-step.js';

/** The retry policy of one subscription, as its options say. */
export function retryPolicy(
  settings: Pick<SubscribeSettings, 'retryDelaysMs' | 'retryJitter' | 'concurrency'>,
): RetryPolicy {
  const { retryDelaysMs, retryJitter, concurrency } = settings;
  const spread = new Spread(retryJitter, concurrency);
  return {
    retryDelaysMs,
    shortened: (delayMs) => spread.next(delayMs, Date.now(), Math.random()),
    now: Date.now,
  };
}

/**
 * Shortens retry delays by up to a part of them, so that messages that failed together, because
 * what their handlers need was down, do not come back in one moment.
 *
 * A random delay for each would not do that: a quorum queue lets messages go from its head only,
 * so a shorter one waits for every longer one ahead of it, and of a hundred that fail together
 * nearly all would leave at the end of the full delay. So the times of leaving grow in the order of
 * entering, by random steps that are on average as long as it takes for `together` messages to
 * fill the part. `together` is how many messages one instance has out, and so how many of its own
 * can fail in one moment. More than that, or several instances, end at the full delay, which is
 * never exceeded: it is the time to live in the queue itself.
 */
export class Spread {
  readonly #part: number;
  readonly #together: number;
  /** When the last one leaves, for each delay. */
  readonly #leavesAt = new Map<number, number>();

  /** @param part of the delay, 0 to 1 */
  constructor(part: number, together: number) {
    this.#part = part;
    this.#together = together;
  }

  /**
   * How long the next message waits, in whole ms, at most `delayMs`.
   * @param random from 0 up to 1
   */
  next(delayMs: number, now: number, random: number): number {
    const spanMs = delayMs * this.#part;
    const earliest = now + delayMs - spanMs;
    const stepMs = (2 * random * spanMs) / this.#together;
    const after = Math.max(earliest, this.#leavesAt.get(delayMs) ?? 0);
    const leavesAt = Math.min(now + delayMs, after + stepMs);
    this.#leavesAt.set(delayMs, leavesAt);
    return Math.max(1, Math.ceil(leavesAt - now));
  }
}

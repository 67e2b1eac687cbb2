/** Of many latencies, in milliseconds. */
export interface Quantiles {
  p50: number;
  p90: number;
  p99: number;
  max: number;
}

/** Of a few runs: which one stands for all, and how far they lay apart. */
export interface Summary {
  median: number;
  min: number;
  max: number;
}

/**
 * Quantiles by nearest rank: each is a value that was measured. All zero when nothing was.
 *
 * @param values in any order; sorted in place, since there may be a million
 */
export function quantiles(values: number[]): Quantiles {
  values.sort((a, b) => a - b);
  const at = (share: number) => values[Math.max(0, Math.ceil(share * values.length) - 1)] ?? 0;
  return { p50: at(0.5), p90: at(0.9), p99: at(0.99), max: at(1) };
}

/** @throws Error for an empty list: a median of nothing would look like a figure */
export function summarize(values: readonly number[]): Summary {
  if (values.length === 0) throw new Error('nothing was measured');
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? 0;
  const lower = sorted.length % 2 === 0 ? (sorted[middle - 1] ?? 0) : upper;
  return { median: (lower + upper) / 2, min: sorted[0] ?? 0, max: sorted.at(-1) ?? 0 };
}

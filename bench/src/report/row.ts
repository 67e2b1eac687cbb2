import type { Run } from '../measure/load-process.js';
import type { Summary } from '../measure/quantiles.js';

/** What a figure is held against. */
export interface Goal {
  /** Reached, or the row says that it was missed. */
  must?: number;
  /** What is hoped for. */
  aim?: number;
  /** Which way is good. @default 'higher' */
  better?: 'higher' | 'lower';
}

/** One line of the report. */
export interface Row {
  /** Stable, for the results file and `--only`: `sdk-mariadb-classic-256`. */
  id: string;
  title: string;
  /** Of `value`: `/s`, `ms`, `µs`. */
  unit: string;
  value: Summary;
  /** For `value`. */
  goal?: Goal;
  ratio?: Goal & {
    /** What it was divided by, in words: "bare publishing". */
    of: string;
    value: Summary;
  };
  /** What a reader must know to judge the figure. */
  notes: string[];
  runs: Run[];
}

/** A row that could not be measured here. */
export interface SkippedRow {
  id: string;
  title: string;
  /** Why, and what would help. */
  skipped: string;
}

/** @returns undefined when there is nothing to reach */
export function isMet(value: number, { must, better }: Goal): boolean | undefined {
  if (must === undefined) return undefined;
  return better === 'lower' ? value <= must : value >= must;
}

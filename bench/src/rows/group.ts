import { fileURLToPath } from 'node:url';
import type { Row, SkippedRow } from '../report/row.js';
import type { Servers } from '../servers.js';

/** What every group of rows gets. */
export interface BenchContext {
  servers: Servers;
  /** Turns of each contender. */
  rounds: number;
  /** How long each run starts new operations. */
  seconds: number;
  /** How long each load runs before its first turn. */
  warmUpSeconds: number;
  /** Only what matters most, since somebody waits. */
  quick: boolean;
}

/** Rows that are measured together, because they share their contenders. */
export interface RowGroup {
  /** For `--only`, such as `throughput-256`. */
  name: string;
  /** Whether it belongs to `--quick`. */
  quick: boolean;
  run(context: BenchContext): Promise<(Row | SkippedRow)[]>;
}

/** Body bytes of every message of every contender: an ordinary event, and that of published figures. */
export const DATA_BYTES = 256;

export type QueueType = 'classic' | 'quorum';

/** The command of a load that is a module of loads/, such as `sdk`. */
export const nodeLoad = (name: string): [string, ...string[]] => [
  process.execPath,
  fileURLToPath(new URL(`../loads/${name}.js`, import.meta.url)),
];

import { mkdirSync, writeFileSync } from 'node:fs';
import type { Machine } from '../measure/machine.js';
import { isMet, type Row, type SkippedRow } from './row.js';
import { goalOf } from './table.js';

/** Everything that was measured, for whoever wants to look closer. */
export interface Results {
  machine: Machine;
  rounds: number;
  seconds: number;
  warmUpSeconds: number;
  rows: (Row | SkippedRow)[];
}

const FOLDER = new URL('../../results/', import.meta.url);

/** Digits beyond these are noise; counts stay exact. */
const rounded = (value: number) => (Number.isInteger(value) ? value : Number(value.toPrecision(4)));

/** `results/<name>.json`, every run included, and a plot beside it. */
export function writeResults(name: string, results: Results, plot: string): void {
  mkdirSync(FOLDER, { recursive: true });
  const text = JSON.stringify(
    results,
    (_, value) => (typeof value === 'number' ? rounded(value) : value),
    1,
  );
  writeFileSync(new URL(`${name}.json`, FOLDER), `${text}\n`);
  writeFileSync(new URL(`${name}.svg`, FOLDER), plot);
}

/**
 * The whole report in one line of JSON, for programs: `ratios` by the ids of their rows, then all rows.
 * Figures and ratios are medians.
 */
export function summaryLine({ machine, rows }: Results): string {
  return JSON.stringify({
    date: machine.date,
    node: machine.node,
    rabbitmq: machine.rabbitmq,
    mariadb: machine.mariadb,
    cores: machine.cores,
    cpu: machine.cpu,
    ratios: Object.fromEntries(
      rows.flatMap((row) =>
        'skipped' in row || row.ratio === undefined
          ? []
          : [[row.id, rounded(row.ratio.value.median)]],
      ),
    ),
    rows: Object.fromEntries(rows.map((row) => [row.id, summaryOf(row)])),
  });
}

function summaryOf(row: Row | SkippedRow): object {
  if ('skipped' in row) return { skipped: row.skipped };
  const judged = goalOf(row);
  const met = judged && isMet(judged.figure, judged.goal);
  return {
    value: rounded(row.value.median),
    unit: row.unit,
    ...(row.ratio === undefined ? {} : { ratio: rounded(row.ratio.value.median) }),
    ...(judged?.goal.must === undefined ? {} : { must: rounded(judged.goal.must) }),
    ...(judged?.goal.aim === undefined ? {} : { aim: judged.goal.aim }),
    ...(met === undefined ? {} : { met }),
  };
}

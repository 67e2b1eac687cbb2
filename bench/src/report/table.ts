import type { Run } from '../measure/load-process.js';
import type { Summary } from '../measure/quantiles.js';
import { type Goal, isMet, type Row, type SkippedRow } from './row.js';

/** Others' CPU time, in percent of one core, from which on rates tell little and only ratios hold. */
const FOREIGN_PERCENT_NOTED = 30;

const HEADINGS = ['', 'figure [range]', 'ratio [range]', 'goal', ''];

/** The report as text: a line a row, and below each what a reader must know. */
export function tableOf(rows: readonly (Row | SkippedRow)[]): string {
  const [head = '', ...lines] = aligned([HEADINGS, ...rows.map(cellsOf)]);
  const withNotes = rows.flatMap((row, index) => [
    lines[index] ?? '',
    ...notesOf(row).map((note) => `    ${note}`),
  ]);
  return [head, ...withNotes].join('\n');
}

const GOAL_HEADINGS = ['goals', 'figure', 'must', 'aim', ''];

/**
 * What is to be reached, in one table: each figure or ratio beside its goal, whether that is met, and
 * what could not be measured.
 */
export function goalsOf(rows: readonly (Row | SkippedRow)[]): string {
  const cells = rows.flatMap((row) => {
    if ('skipped' in row) return [[row.title, '', '', '', 'not measured']];
    const judged = goalOf(row);
    return judged === undefined ? [] : [goalCellsOf(row, judged)];
  });
  return aligned([GOAL_HEADINGS, ...cells]).join('\n');
}

function goalCellsOf({ title, ratio }: Row, { goal, figure, unit }: Judged): string[] {
  const sign = goal.better === 'lower' ? '≤' : '≥';
  const bound = (value: number | undefined) =>
    value === undefined ? '' : `${sign} ${numberOf(value, unit)}`;
  return [
    title,
    unit === '×' && ratio !== undefined
      ? `${numberOf(figure, unit)} × ${ratio.of}`
      : `${numberOf(figure, unit)} ${unit}`,
    bound(goal.must),
    bound(goal.aim),
    verdictOf(figure, goal),
  ];
}

/** Lines with their columns below each other. */
function aligned(cells: readonly (readonly string[])[]): string[] {
  const columns = cells[0] ?? [];
  const widths = columns.map((_, column) =>
    Math.max(...cells.map((row) => row[column]?.length ?? 0)),
  );
  return cells.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('  ')
      .trimEnd(),
  );
}

function cellsOf(row: Row | SkippedRow): string[] {
  if ('skipped' in row) return [row.title, 'not measured', '', '', ''];
  const { value, ratio } = row;
  const judged = goalOf(row);
  return [
    row.title,
    `${withRange(value, row.unit)} ${row.unit}`,
    ratio === undefined ? '' : `${withRange(ratio.value, '×')} × ${ratio.of}`,
    judged === undefined ? '' : wordsOf(judged.goal, judged.unit),
    judged === undefined ? '' : verdictOf(judged.figure, judged.goal),
  ];
}

function notesOf(row: Row | SkippedRow): string[] {
  if ('skipped' in row) return [row.skipped];
  return [...row.notes, ...disturbanceOf(row.runs)];
}

export interface Judged {
  goal: Goal;
  /** What is held against it. */
  figure: number;
  unit: string;
}

/** The goal of a row, for its figure or its ratio. */
export function goalOf(row: Row): Judged | undefined {
  const judged = [
    ...(row.goal === undefined
      ? []
      : [{ goal: row.goal, figure: row.value.median, unit: row.unit }]),
    ...(row.ratio === undefined
      ? []
      : [{ goal: row.ratio, figure: row.ratio.value.median, unit: '×' }]),
  ];
  return judged.find(({ goal }) => goal.must !== undefined || goal.aim !== undefined);
}

function wordsOf({ must, aim, better }: Goal, unit: string): string {
  const sign = better === 'lower' ? '≤' : '≥';
  return [
    ...(must === undefined ? [] : [`must ${sign} ${numberOf(must, unit)}`]),
    ...(aim === undefined ? [] : [`aim ${sign} ${numberOf(aim, unit)}`]),
  ].join(', ');
}

/** "met", "met, aim reached", "NOT MET", or nothing where there is nothing to reach. */
function verdictOf(figure: number, goal: Goal): string {
  const met = isMet(figure, goal);
  const { aim, better = 'higher' } = goal;
  const reached = aim !== undefined && isMet(figure, { must: aim, better });
  if (met === false) return 'NOT MET';
  if (reached) return met === undefined ? 'aim reached' : 'met, aim reached';
  return met === undefined ? '' : 'met';
}

function withRange({ median, min, max }: Summary, unit: string): string {
  const range = `[${numberOf(min, unit)} to ${numberOf(max, unit)}]`;
  return `${numberOf(median, unit)} ${range}`;
}

/** As many digits as a noisy measurement deserves. */
function numberOf(value: number, unit: string): string {
  if (unit === '×') return value.toFixed(2);
  if (unit === 'ms') return value.toFixed(value < 10 ? 2 : 1);
  return Math.round(value).toLocaleString('en-US');
}

function disturbanceOf(runs: readonly Run[]): string[] {
  const most = Math.max(0, ...runs.map((run) => run.foreignCpuPercent));
  if (most < FOREIGN_PERCENT_NOTED) return [];
  return [
    `other programs used up to ${most.toFixed(0)} % of a core meanwhile: a ratio holds, a rate may not`,
  ];
}

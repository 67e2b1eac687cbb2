import { expect, test } from '@jest/globals';
import { barChart, ratioBars } from '../../bench/src/report/plot.js';
import { summaryLine } from '../../bench/src/report/results.js';
import type { Goal, Row } from '../../bench/src/report/row.js';
import { goalsOf, tableOf } from '../../bench/src/report/table.js';

const at = (median: number) => ({ median, min: median - 0.1, max: median + 0.1 });

const compared = (ratio: number, goal: Goal): Row => ({
  id: 'sdk',
  title: 'SDK',
  unit: '/s',
  value: { median: 12_345, min: 12_000, max: 13_000 },
  ratio: { ...goal, of: 'bare publishing', value: at(ratio) },
  notes: ['a note'],
  runs: [],
});

const latency = (median: number, goal: Goal): Row => ({
  id: 'prepare',
  title: 'Prepare p50',
  unit: 'ms',
  value: at(median),
  goal,
  notes: [],
  runs: [],
});

test.each([
  [compared(0.6, { must: 0.5, aim: 0.7 }), /must ≥ 0\.50, aim ≥ 0\.70 +met$/m],
  [compared(0.7, { must: 0.5, aim: 0.7 }), /met, aim reached$/m],
  [compared(0.49, { must: 0.5, aim: 0.7 }), /NOT MET$/m],
  [compared(0.8, { aim: 0.7 }), /aim reached$/m],
  [compared(0.6, { aim: 0.7 }), /aim ≥ 0\.70$/m],
  [latency(3, { must: 3, better: 'lower' }), /must ≤ 3\.00 +met$/m],
  [latency(3.1, { must: 3, better: 'lower' }), /NOT MET$/m],
  [latency(1.9, { must: 3, aim: 2, better: 'lower' }), /met, aim reached$/m],
])('a row says whether its goal is met: %#', (row, expected) => {
  expect(tableOf([row])).toMatch(expected);
});

test('a row shows figure, ratio and range, and its notes below', () => {
  const [, row, note] = tableOf([compared(0.6, {})]).split('\n');
  expect(row).toMatch(
    /^SDK +12,345 \[12,000 to 13,000\] \/s +0\.60 \[0\.50 to 0\.70\] × bare publishing$/,
  );
  expect(note).toBe('    a note');
});

test('a row tells that other programs were busy meanwhile', () => {
  const run = {
    operations: 1,
    seconds: 1,
    latencyMs: {},
    perSecond: 1,
    cpuMicrosPerOperation: {},
    foreignCpuPercent: 93,
  };
  expect(tableOf([{ ...compared(0.6, {}), runs: [run] }])).toContain('up to 93 % of a core');
  expect(tableOf([compared(0.6, {})])).not.toContain('other programs');
});

test('a row that could not be measured says why', () => {
  const table = tableOf([{ id: 'dtm', title: 'DTM', skipped: 'there is no Go' }]);
  expect(table).toMatch(/DTM +not measured\n {4}there is no Go$/);
});

test('the goals are in one table: figure, must, aim and verdict, and what was not measured', () => {
  const rows = [
    compared(0.6, { must: 0.5, aim: 0.7 }),
    { ...compared(0.6, {}), title: 'without a goal' },
    latency(4, { must: 3, better: 'lower' }),
    { id: 'dtm', title: 'DTM', skipped: 'there is no Go' },
  ];
  const [head, sdk, prepare, dtm, ...rest] = goalsOf(rows).split('\n');
  expect(head).toMatch(/^goals +figure +must +aim$/);
  expect(sdk).toMatch(/^SDK +0\.60 × bare publishing +≥ 0\.50 +≥ 0\.70 +met$/);
  expect(prepare).toMatch(/^Prepare p50 +4\.00 ms +≤ 3\.00 +NOT MET$/);
  expect(dtm).toMatch(/^DTM +not measured$/);
  expect(rest).toEqual([]);
});

test('the last line holds every figure, its goal and whether that is met', () => {
  const machine = {
    date: '2026-01-01T00:00:00.000Z',
    cpu: 'a CPU',
    cores: 2,
    memoryGiB: 4,
    system: 'Linux',
    node: 'v20.19.0',
    rabbitmq: '3.10.8 (Erlang/OTP 25)',
    mariadb: '10.11.19-MariaDB',
    mariadbSettings: {},
    syncMs: 0.1,
  };
  const rows = [
    compared(0.6, { must: 0.5, aim: 0.7 }),
    latency(4, { must: 3, better: 'lower' }),
    { id: 'dtm', title: 'DTM', skipped: 'there is no Go' },
  ];
  const line = summaryLine({ machine, rounds: 3, seconds: 3, warmUpSeconds: 8, rows });
  expect(line).not.toContain('\n');
  expect(JSON.parse(line)).toMatchObject({
    node: 'v20.19.0',
    ratios: { sdk: 0.6 },
    rows: {
      sdk: { value: 12_345, unit: '/s', ratio: 0.6, must: 0.5, aim: 0.7, met: true },
      prepare: { value: 4, unit: 'ms', must: 3, met: false },
      dtm: { skipped: 'there is no Go' },
    },
  });
});

test('a plot has a bar for each ratio, a mark for its goal, and no text that breaks it', () => {
  const rows = [{ ...compared(0.5, { must: 0.25 }), title: 'a < b & "c"' }, latency(1, {})];
  const svg = barChart({ title: 'Ratios', subtitle: '', bars: ratioBars(rows) });
  expect(svg.match(/class="bar"/g)).toHaveLength(1);
  expect(svg).toContain('a &lt; b &amp; &quot;c&quot;');
  const width = Number(/class="bar" x="(\d+)" y="\d+" width="([\d.]+)"/.exec(svg)?.[2]);
  const mark = Number(/x1="([\d.]+)"/.exec(svg)?.[1]);
  const start = Number(/class="bar" x="(\d+)"/.exec(svg)?.[1]);
  expect(mark - start).toBeCloseTo(width / 2, 1);
});

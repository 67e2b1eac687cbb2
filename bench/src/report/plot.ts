import type { Row, SkippedRow } from './row.js';

export interface Bar {
  label: string;
  /** Its length. */
  value: number;
  /** Beside the bar. */
  text: string;
  /** A mark across it, such as a goal. */
  mark?: number;
}

const WIDTH = 940;
const LABEL_WIDTH = 400;
/** For the text beside the longest bar. */
const TEXT_WIDTH = 150;
const BAR_HEIGHT = 18;
const ROW_HEIGHT = 28;
const TOP = 64;

/** Colours follow the reader's: a page shows the file as an image, where only this reaches it. */
const STYLE = `
    text { font: 13px system-ui, sans-serif; fill: #24292f; }
    .title { font-size: 16px; font-weight: 600; }
    .faint { fill: #57606a; }
    .bar { fill: #2f6fde; }
    .mark { stroke: #c0392b; stroke-width: 2; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .faint { fill: #9aa4af; }
      .bar { fill: #6ea8ff; }
      .mark { stroke: #ff8a75; }
    }`;

/** Horizontal bars as an SVG on a transparent background, readable on light and dark pages. */
export function barChart(options: { title: string; subtitle: string; bars: Bar[] }): string {
  const { title, subtitle, bars } = options;
  const longest = Math.max(...bars.map(({ value, mark = 0 }) => Math.max(value, mark)), 0) || 1;
  const scale = (WIDTH - LABEL_WIDTH - TEXT_WIDTH) / longest;
  const height = TOP + bars.length * ROW_HEIGHT + 8;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">
  <style>${STYLE}
  </style>
  <text class="title" x="8" y="24">${escaped(title)}</text>
  <text class="faint" x="8" y="44">${escaped(subtitle)}</text>
${bars.map((bar, index) => barAt(bar, TOP + index * ROW_HEIGHT, scale)).join('\n')}
</svg>
`;
}

function barAt({ label, value, text, mark }: Bar, y: number, scale: number): string {
  const middle = y + BAR_HEIGHT / 2 + 4;
  const end = (amount: number) => (LABEL_WIDTH + amount * scale).toFixed(1);
  const textAt = (
    Math.max(Number(end(value)), mark === undefined ? 0 : Number(end(mark))) + 8
  ).toFixed(1);
  return [
    `  <text x="${LABEL_WIDTH - 8}" y="${middle}" text-anchor="end">${escaped(label)}</text>`,
    `  <rect class="bar" x="${LABEL_WIDTH}" y="${y}" width="${(value * scale).toFixed(1)}" height="${BAR_HEIGHT}" rx="2"/>`,
    ...(mark === undefined
      ? []
      : [
          `  <line class="mark" x1="${end(mark)}" x2="${end(mark)}" y1="${y - 3}" y2="${y + BAR_HEIGHT + 3}"/>`,
        ]),
    `  <text class="faint" x="${textAt}" y="${middle}">${escaped(text)}</text>`,
  ].join('\n');
}

const ENTITIES: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

const escaped = (text: string) => text.replace(/[&<>"]/g, (character) => ENTITIES[character] ?? '');

/** A bar for each row with a ratio, as long as that is; its mark is what must be reached. */
export function ratioBars(rows: readonly (Row | SkippedRow)[]): Bar[] {
  return rows.flatMap((row) => {
    if ('skipped' in row || row.ratio === undefined) return [];
    const { value, must } = row.ratio;
    const rate = `${Math.round(row.value.median).toLocaleString('en-US')} ${row.unit}`;
    return [
      {
        label: row.title,
        value: value.median,
        text: `${value.median.toFixed(2)} (${rate})`,
        ...(must === undefined ? {} : { mark: must }),
      },
    ];
  });
}

/** A bar for each row in that unit, as long as its figure. */
export function figureBars(rows: readonly (Row | SkippedRow)[], unit: string): Bar[] {
  return rows.flatMap((row) => {
    if ('skipped' in row || row.unit !== unit) return [];
    const { median } = row.value;
    return [
      {
        label: row.title,
        value: median,
        text: `${Math.round(median).toLocaleString('en-US')} ${unit}`,
      },
    ];
  });
}

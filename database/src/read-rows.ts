import { EscrowError } from '@escrowmq/protocol';

/**
 * What the SDK reads from a service's own database comes through here, whichever layer brings it. A
 * layer may be told to rename the columns of every row, to give rows as arrays or to turn values into
 * others, and a name that is not there would read as `undefined`: as no claim, no due row, no decision.
 * So each column is looked for and its type is looked at, and what is missing is an error that says
 * who most likely took it.
 */
export type ColumnKind = 'text' | 'number' | 'text or null' | 'number or null';

/** The columns of a select by name, in the order in which it names them. One lower-case word each. */
export type Columns = Readonly<Record<string, ColumnKind>>;

/** A row with these columns: text as string, number as number, and `undefined` for null. */
export type RowOf<C extends Columns> = {
  readonly [Name in keyof C]: C[Name] extends 'text'
    ? string
    : C[Name] extends 'number'
      ? number
      : C[Name] extends 'text or null'
        ? string | undefined
        : number | undefined;
};

/** Who brought the rows, for the error. */
export interface Bringer {
  /** As its users call it: `Knex`. */
  layer: string;
  /** What of it may change rows on their way: `postProcessResponse`. */
  hooks: string;
}

/**
 * @param answer what the layer answered to a select
 * @throws {EscrowError} INVALID_CONFIGURATION for anything but rows with these columns
 */
export function readRows<C extends Columns>(
  answer: unknown,
  columns: C,
  bringer: Bringer,
): RowOf<C>[] {
  if (!Array.isArray(answer)) throw changed(bringer, `${described(answer)} instead of rows`);
  const names = Object.keys(columns);
  return answer.map((row: unknown) => {
    const read: Record<string, unknown> = {};
    names.forEach((name, place) => {
      const found = valueIn(row, { name, place, count: names.length });
      if (found === undefined) {
        throw changed(bringer, `a row without the column ${name}: ${described(row)}`);
      }
      const kind = columns[name] as ColumnKind;
      const value = valueAs(kind, found.value);
      if (value === NONE) {
        throw changed(
          bringer,
          `${described(found.value)} in the column ${name}, which holds a ${kind}`,
        );
      }
      read[name] = value;
    });
    return read as RowOf<C>;
  });
}

/**
 * In an array by its place, else by its name, in whatever case: that much a mapper of names may
 * change in one lower-case word.
 */
function valueIn(
  row: unknown,
  { name, place, count }: { name: string; place: number; count: number },
): { value: unknown } | undefined {
  if (typeof row !== 'object' || row === null) return undefined;
  if (Array.isArray(row)) return row.length === count ? { value: row[place] } : undefined;
  if (name in row) return { value: Reflect.get(row, name) };
  const other = Object.keys(row).find((key) => key.toLowerCase() === name);
  return other === undefined ? undefined : { value: Reflect.get(row, other) };
}

/** No value of that kind. */
const NONE = Symbol('none');

function valueAs(kind: ColumnKind, value: unknown): string | number | undefined | typeof NONE {
  switch (kind) {
    case 'text':
      return textOf(value);
    case 'number':
      return numberOf(value);
    case 'text or null':
      return value === null ? undefined : textOf(value);
    case 'number or null':
      return value === null ? undefined : numberOf(value);
  }
}

function textOf(value: unknown): string | typeof NONE {
  if (typeof value === 'string') return value;
  // On a connection whose character set is binary, text comes as its bytes.
  return value instanceof Uint8Array ? Buffer.from(value).toString() : NONE;
}

/** A whole number, as a number, a bigint or text: drivers have a setting for each. */
function numberOf(value: unknown): number | typeof NONE {
  const text = typeof value === 'number' || typeof value === 'bigint' ? value : textOf(value);
  if (text === NONE || text === '') return NONE;
  const number = Number(text);
  return Number.isSafeInteger(number) ? number : NONE;
}

/** Values are not told: they may be secret. */
function described(value: unknown): string {
  if (value === null || typeof value !== 'object') {
    return value === null || value === undefined ? String(value) : `a ${typeof value}`;
  }
  if (Array.isArray(value)) return `an array of ${value.length}`;
  const names = Object.keys(value).slice(0, NAMES_MAX);
  return names.length === 0 ? 'an object without columns' : `an object with ${names.join(', ')}`;
}

/** More columns than any select of the SDK has. */
const NAMES_MAX = 8;

function changed({ layer, hooks }: Bringer, found: string): EscrowError {
  return new EscrowError(
    'INVALID_CONFIGURATION',
    `${layer} gave ${found}. Something between the SDK and the database changes what was read, most likely ${hooks}; let it leave the rows of the tables escrow_… as they are`,
  );
}

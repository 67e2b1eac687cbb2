import { EscrowError, type FieldError } from './error-codes.js';
import { textOfError } from './foreign.js';

/*
 * What users pass to the SDKs: objects of options, and functions. A name that is none of an option is a
 * setting that somebody believes in and that does nothing, so it is refused, wherever options are taken.
 */

/** The names of all options of a type: the compiler misses none, and none too many. */
export const optionNames = <Options>(
  names: Record<keyof Required<Options>, true>,
): readonly string[] => Object.keys(names);

/**
 * Refuses options that have a name which is none, and what is no object of options.
 *
 * @param where takes the options, for the error: `createProducer`
 * @throws {EscrowError} UNKNOWN_FIELD, which names the nearest option; INVALID_CONFIGURATION for what is
 *   no object of options at all
 */
export function refuseUnknown(options: unknown, known: readonly string[], where: string): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new EscrowError(
      'INVALID_CONFIGURATION',
      `${where} takes an object with options (${known.join(', ')}), and was given ${kindOf(options)}`,
    );
  }
  const unknown = Object.keys(options).filter((name) => !known.includes(name));
  if (unknown.length === 0) return;
  const fields = unknown.map((path): FieldError => {
    const near = nearest(path, known);
    return { path, message: `is not an option${near === undefined ? '' : `; ${near} is`}` };
  });
  const said = fields.map(({ path, message }) => `${path} ${message}`).join(', ');
  throw new EscrowError(
    'UNKNOWN_FIELD',
    `${where} does not know ${unknown.join(', ')}: ${said}. It knows ${known.join(', ')}`,
    { fields },
  );
}

/** Refuses what is no function. @throws {EscrowError} INVALID_CONFIGURATION */
export function requireFunction(given: unknown, what: string, where: string): void {
  if (typeof given === 'function') return;
  throw new EscrowError(
    'INVALID_CONFIGURATION',
    `${where} takes a function as its ${what}, and was given ${kindOf(given)}`,
  );
}

/** What was given in the place of something else, without showing it: it may be a secret. */
export function kindOf(given: unknown): string {
  if (given === null || given === undefined) return textOfError(given);
  if (Array.isArray(given)) return 'a list';
  return typeof given === 'object' ? 'an object' : `a ${typeof given}`;
}

/** Changes of one character each that make a slip of the keyboard; more is another word. */
const SLIPS_MAX = 2;

function nearest(name: string, known: readonly string[]): string | undefined {
  const lower = name.toLowerCase();
  const slips = known.map((option) => ({ option, by: distance(lower, option.toLowerCase()) }));
  const [best] = slips.sort((a, b) => a.by - b.by);
  return best !== undefined && best.by <= SLIPS_MAX ? best.option : undefined;
}

/** Insertions, deletions and replacements of one character between two words. */
function distance(from: string, to: string): number {
  let row = Array.from({ length: to.length + 1 }, (_, index) => index);
  for (const [line, letter] of [...from].entries()) {
    const next = [line + 1];
    for (let index = 0; index < to.length; index += 1) {
      const replaced = (row[index] ?? 0) + (letter === to[index] ? 0 : 1);
      next.push(Math.min(replaced, (row[index + 1] ?? 0) + 1, (next[index] ?? 0) + 1));
    }
    row = next;
  }
  return row[to.length] ?? 0;
}

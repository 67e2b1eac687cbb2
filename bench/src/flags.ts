import { parseArgs } from 'node:util';

export interface Flags {
  /** Only what matters most. */
  quick: boolean;
  /** Only groups of rows whose name contains it. */
  only: string | undefined;
  rounds: number;
  seconds: number;
}

/** A wrong flag; the message is all that the user needs to see. */
export class FlagError extends Error {}

/** Three give a median that one disturbance can't move; five say how far runs lie apart. */
const ROUNDS_QUICK = 3;
const ROUNDS = 5;
/** Ten thousand transactions and more, and some dozens of a queue's stalls. */
const SECONDS = 3;

const USAGE = `flags:
  --quick        only what matters most, under three minutes
  --only <text>  only the groups of rows whose name contains the text
  --rounds <n>   turns of each contender, 1 to 100 (default ${ROUNDS}, with --quick ${ROUNDS_QUICK})
  --seconds <s>  how long each run starts new operations, 0.1 to 60 (default ${SECONDS})`;

/** @throws FlagError that names what is wrong and what there is */
export function parseFlags(args: readonly string[]): Flags {
  const values = readFlags(args);
  const quick = values.quick === true;
  const rounds = numberOf('--rounds', values.rounds, quick ? ROUNDS_QUICK : ROUNDS);
  const seconds = numberOf('--seconds', values.seconds, SECONDS);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new FlagError(`--rounds is ${rounds}; it must be a whole number from 1 to 100\n${USAGE}`);
  }
  if (!(seconds >= 0.1 && seconds <= 60)) {
    throw new FlagError(`--seconds is ${seconds}; it must be from 0.1 to 60\n${USAGE}`);
  }
  return { quick, only: values.only, rounds, seconds };
}

function readFlags(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        quick: { type: 'boolean' },
        only: { type: 'string' },
        rounds: { type: 'string' },
        seconds: { type: 'string' },
      },
    }).values;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new FlagError(`${said}\n${USAGE}`);
  }
}

function numberOf(flag: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) return otherwise;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isNaN(value)) throw new FlagError(`${flag} is "${text}", not a number\n${USAGE}`);
  return value;
}

/**
 * The groups that the flags ask for.
 *
 * @throws FlagError that lists the names, when there is none
 */
export function chosen<G extends { name: string; quick: boolean }>(
  groups: readonly G[],
  { quick, only }: Pick<Flags, 'quick' | 'only'>,
): G[] {
  const found = groups.filter(
    (group) => (group.quick || !quick) && (only === undefined || group.name.includes(only)),
  );
  if (found.length > 0) return found;
  const names = groups.map(({ name }) => `  ${name}`).join('\n');
  const what = only === undefined ? '' : ` whose name contains "${only}"`;
  throw new FlagError(
    `there is no group of rows${quick ? ' for --quick' : ''}${what}; there are:\n${names}`,
  );
}

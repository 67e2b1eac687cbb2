import { parseArgs } from 'node:util';

export interface Flags {
  /** Only what matters most. */
  quick: boolean;
  /** Only groups of rows whose name contains it. */
  only: string | undefined;
  rounds: number;
  seconds: number;
  warmUpSeconds: number;
}

/** A wrong flag; the message is all that the user needs to see. */
export class FlagError extends Error {}

/** The fewest that give a median which one disturbance can't move; more would take over half an hour. */
const ROUNDS = 3;
/** Ten thousand transactions and more, and some dozens of a queue's stalls. */
const SECONDS = 3;
/**
 * In its first seconds a sixth of the broker's CPU time is the compiler's, and of a load's more; it
 * goes on getting faster for most of a minute (51, 43 and 32 µs a transaction in three turns). A
 * broker runs for weeks; a run of `--quick` must end.
 */
const WARM_UP_SECONDS = 15;
const QUICK_WARM_UP_SECONDS = 8;

const USAGE = `flags:
  --quick        only what matters most, under three minutes
  --only <text>  only the groups of rows whose name contains the text
  --rounds <n>   turns of each contender, 1 to 100 (default ${ROUNDS})
  --seconds <s>  how long each run starts new operations, 0.1 to 60 (default ${SECONDS})
  --warm-up <s>  how long each load runs before its first turn, 0.1 to 60 (default ${WARM_UP_SECONDS}, with --quick ${QUICK_WARM_UP_SECONDS})`;

/** @throws FlagError that names what is wrong and what there is */
export function parseFlags(args: readonly string[]): Flags {
  const values = readFlags(args);
  const quick = values.quick === true;
  const rounds = numberOf('--rounds', values.rounds, ROUNDS);
  if (!Number.isInteger(rounds) || rounds < 1 || rounds > 100) {
    throw new FlagError(`--rounds is ${rounds}; it must be a whole number from 1 to 100\n${USAGE}`);
  }
  return {
    quick,
    only: values.only,
    rounds,
    seconds: secondsOf('--seconds', values.seconds, SECONDS),
    warmUpSeconds: secondsOf(
      '--warm-up',
      values['warm-up'],
      quick ? QUICK_WARM_UP_SECONDS : WARM_UP_SECONDS,
    ),
  };
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
        'warm-up': { type: 'string' },
      },
    }).values;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new FlagError(`${said}\n${USAGE}`);
  }
}

function secondsOf(flag: string, text: string | undefined, otherwise: number): number {
  const seconds = numberOf(flag, text, otherwise);
  if (seconds >= 0.1 && seconds <= 60) return seconds;
  throw new FlagError(`${flag} is ${seconds}; it must be from 0.1 to 60\n${USAGE}`);
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

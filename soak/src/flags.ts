import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';
import { parseServerSet, type ServerSet } from '@escrowmq/local-servers';

export interface Flags {
  transactions: number;
  seed: number;
  /** Ten kills each of RabbitMQ and of both databases. */
  restarts: boolean;
  /** No faults at all: what the workload does by itself. */
  calm: boolean;
  /** Whose servers; undefined: of the set that ESCROW_TEST_SERVERS names, else the machine's own. */
  servers?: ServerSet | undefined;
}

/** A wrong flag; the message is all that the user needs to see. */
export class FlagError extends Error {}

/** Enough for 240 faults, and for every kind of them ten times. */
const TRANSACTIONS = 12_000;
/** The checker's joins are linear; beyond it a run takes most of a day. */
const TRANSACTIONS_MAX = 10_000_000;
const SEED_MAX = 2 ** 31 - 1;

const USAGE = `flags:
  --transactions <n>  how many are attempted, 1 to ${TRANSACTIONS_MAX} (default ${TRANSACTIONS})
  --seed <n>          of faults and work, 0 to ${SEED_MAX} (default: a random one, which is printed)
  --restarts          kills RabbitMQ and each database ten times
  --calm              no faults: what the workload does by itself
  --servers <set>     debian-12, debian-13 or debian-sid (default: what ESCROW_TEST_SERVERS names,
                      else the machine's packages)`;

/** @throws FlagError that names what is wrong and what there is */
export function parseFlags(args: readonly string[]): Flags {
  const values = readFlags(args);
  return {
    transactions: wholeOf('--transactions', values.transactions ?? String(TRANSACTIONS), {
      min: 1,
      max: TRANSACTIONS_MAX,
    }),
    seed: wholeOf('--seed', values.seed ?? String(randomInt(SEED_MAX)), { min: 0, max: SEED_MAX }),
    restarts: values.restarts === true,
    calm: values.calm === true,
    servers: values.servers === undefined ? undefined : serverSetOf(values.servers),
  };
}

function serverSetOf(name: string): ServerSet {
  try {
    return parseServerSet(name, '--servers');
  } catch (error) {
    throw new FlagError(`${error instanceof Error ? error.message : error}\n${USAGE}`);
  }
}

function readFlags(args: readonly string[]) {
  try {
    return parseArgs({
      args: [...args],
      options: {
        transactions: { type: 'string' },
        seed: { type: 'string' },
        restarts: { type: 'boolean' },
        calm: { type: 'boolean' },
        servers: { type: 'string' },
      },
    }).values;
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    throw new FlagError(`${said}\n${USAGE}`);
  }
}

function wholeOf(flag: string, text: string, range: { min: number; max: number }): number {
  const { min, max } = range;
  const value = text.trim() === '' ? Number.NaN : Number(text);
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new FlagError(
    `${flag} is "${text}"; it must be a whole number from ${min} to ${max}\n${USAGE}`,
  );
}

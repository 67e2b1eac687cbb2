import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { EscrowError } from '@escrowmq/protocol';

export const USAGE = `escrow-outbox-relay: sends what local transactions have left in the outbox

  --broker <url>            address of a broker; several may be given
  --producer-group <name>   whose messages to send
  --database <url>          mysql://user:password@host:port/database, postgres://… or sqlite:app.db;
                            several may be given
  --create-table            creates the table escrow_outbox where it is missing
  --purge-after-days <n>    deletes what was sent longer ago, once an hour; never keeps it
                            (default: 7 with --create-table, else never)
  --once                    sends what is due and ends, with 1 where something is left
  --help

Secrets come from the environment: ESCROW_OUTBOX_DATABASE in place of --database, ESCROW_API_KEY, or
ESCROW_OUTBOX_DATABASE_FILE and ESCROW_API_KEY_FILE, which name files that hold them.`;

/** What the command was asked to do. */
export interface CommandOptions {
  brokers: string[];
  producerGroup: string;
  apiKey: string | undefined;
  databaseUrls: string[];
  createTable: boolean;
  /** `undefined` for never. */
  purgeAfterDays: number | undefined;
  once: boolean;
}

type Variables = Record<string, string | undefined>;

/**
 * @returns `undefined` where only help was asked for
 * @throws {EscrowError} INVALID_CONFIGURATION that names the flag or variable
 */
export function parseCommand(args: string[], environment: Variables): CommandOptions | undefined {
  const values = parsedArgs(args);
  if (values.help === true) return undefined;
  const fromEnvironment = secretFrom(environment, 'ESCROW_OUTBOX_DATABASE');
  const databaseUrls = values.database ?? (fromEnvironment === undefined ? [] : [fromEnvironment]);
  if (databaseUrls.length === 0) {
    throw invalid('give the database by --database or ESCROW_OUTBOX_DATABASE');
  }
  const brokers = values.broker ?? [];
  if (brokers.length === 0) throw invalid('give at least one broker by --broker');
  const producerGroup = values['producer-group'];
  if (producerGroup === undefined) throw invalid('--producer-group is missing');
  const createTable = values['create-table'] === true;
  return {
    brokers,
    producerGroup,
    apiKey: secretFrom(environment, 'ESCROW_API_KEY'),
    databaseUrls,
    createTable,
    purgeAfterDays: daysOf(values['purge-after-days'] ?? (createTable ? DAYS_DEFAULT : 'never')),
    once: values.once === true,
  };
}

function parsedArgs(args: string[]) {
  try {
    return parseArgs({
      args,
      options: {
        broker: { type: 'string', multiple: true },
        'producer-group': { type: 'string' },
        database: { type: 'string', multiple: true },
        'create-table': { type: 'boolean' },
        'purge-after-days': { type: 'string' },
        once: { type: 'boolean' },
        help: { type: 'boolean' },
      },
    }).values;
  } catch (error) {
    throw invalid(error instanceof Error ? error.message : String(error));
  }
}

/** As `ensureOutboxTable` has it. */
const DAYS_DEFAULT = '7';
const DAYS_MAX = 3_650;

function daysOf(text: string): number | undefined {
  if (text === 'never') return undefined;
  const days = Number(text);
  if (days >= 1 && days <= DAYS_MAX) return days;
  throw invalid(
    `--purge-after-days is ${JSON.stringify(text)}; it must be a number from 1 to ${DAYS_MAX}, or never`,
  );
}

/** The variable, or what stands in the file that `<name>_FILE` names; an empty one is not set. */
function secretFrom(environment: Variables, name: string): string | undefined {
  const value = environment[name] || undefined;
  const path = environment[`${name}_FILE`] || undefined;
  if (path === undefined) return value;
  if (value !== undefined) {
    throw invalid(`${name} and ${name}_FILE are both set; set one of the two`);
  }
  try {
    return readFileSync(path, 'utf8').trim();
  } catch (error) {
    throw invalid(
      `${name}_FILE can not be read: ${error instanceof Error ? error.message : String(error)}`,
    );
  }
}

const invalid = (message: string) => new EscrowError('INVALID_CONFIGURATION', message);

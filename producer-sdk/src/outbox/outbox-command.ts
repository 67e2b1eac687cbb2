#!/usr/bin/env node
import { type Housekeeping, parseEveryMs } from '@escrowmq/database';
import { isEscrowError } from '@escrowmq/protocol';
import type { Logger } from '../logger.js';
import { type OpenedDatabase, openByUrl } from './outbox-command-database.js';
import { type CommandOptions, parseCommand, USAGE } from './outbox-command-options.js';
import { keepOutbox } from './outbox-purge.js';
import { createOutboxRelay, type OutboxRelay } from './outbox-relay.js';
import { ensureOutboxTable } from './outbox-table.js';

/** The relay as a process of its own: start, signals, exit codes. */

const SIGNALS = ['SIGTERM', 'SIGINT'] as const;
const DAY_MS = 24 * 60 * 60 * 1000;

/** Exit codes: wrong usage is told apart from what may be over at the next attempt. */
const WRONG_USAGE = 2;

/** One JSON object per line. Values are never those of a row: they may be secret. */
function say(level: string, fields: Record<string, unknown>, message: string): void {
  const error = fields.error;
  const said = error instanceof Error ? { ...fields, error: error.message } : fields;
  const line = { at: new Date().toISOString(), level, message, ...said };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

const logger: Logger = {
  info: (fields, message) => say('info', fields, message),
  warn: (fields, message) => say('warn', fields, message),
  error: (fields, message) => say('error', fields, message),
};

async function run(options: CommandOptions): Promise<void> {
  const opened = await Promise.all(options.databaseUrls.map(openByUrl));
  try {
    if (options.createTable) {
      for (const { database } of opened) await ensureOutboxTable(database, { housekeeping: false });
    }
    const { brokers, producerGroup, apiKey } = options;
    const relay = createOutboxRelay({
      brokers,
      producerGroup,
      ...(apiKey === undefined ? {} : { apiKey }),
      databases: Object.fromEntries(
        opened.map(({ database }, index) => [`${index + 1}: ${database.dialect}`, database]),
      ),
      logger,
    });
    try {
      if (options.once) await sendAll(relay);
      else await relayUntilStopped(relay, opened, options.purgeAfterDays);
    } finally {
      await relay.close();
    }
  } finally {
    for (const each of opened) await each.close();
  }
  say('info', {}, 'stopped');
}

/** Everything that is due, and no waiting for what is put off. */
async function sendAll(relay: OutboxRelay): Promise<void> {
  for (;;) {
    const { sent, parked, putOff } = await relay.runOnce();
    say('info', { sent, parked, putOff }, 'relayed');
    if (putOff > 0) process.exitCode = 1;
    if (putOff > 0 || sent + parked === 0) return;
  }
}

async function relayUntilStopped(
  relay: OutboxRelay,
  opened: OpenedDatabase[],
  purgeAfterDays: number | undefined,
): Promise<void> {
  const stopped = new Promise<string>((resolve) => {
    for (const signal of SIGNALS) process.once(signal, resolve);
  });
  relay.start();
  say('info', { databases: opened.length }, 'relaying');
  const kept = purgeAfterDays === undefined ? [] : keepOutboxes(opened, purgeAfterDays * DAY_MS);
  say('info', { signal: await stopped }, 'stopping');
  await Promise.all(kept.map((each) => each.stop()));
}

function keepOutboxes(opened: OpenedDatabase[], keptMs: number): Housekeeping[] {
  return opened.map(({ database }) =>
    keepOutbox(database, { keptMs, everyMs: parseEveryMs(), logger }),
  );
}

function main(): void {
  let options: CommandOptions | undefined;
  try {
    options = parseCommand(process.argv.slice(2), process.env);
  } catch (error) {
    if (!isEscrowError(error)) throw error;
    process.stderr.write(`${error.message}\n\n${USAGE}\n`);
    process.exitCode = WRONG_USAGE;
    return;
  }
  if (options === undefined) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  run(options).catch((error: unknown) => {
    logger.error({ error }, 'the relay could not run');
    process.exitCode =
      isEscrowError(error) && error.code === 'INVALID_CONFIGURATION' ? WRONG_USAGE : 1;
  });
}

main();
